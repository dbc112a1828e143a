"""What is sent to a host to have something done there. Pure.

A program is one text: the modules of `fleet.hostside` that an action needs, and the request. It goes to the
standard input of the host's own Python, so nothing is installed, no secret is ever in a command line, and
one exec is one round trip. Data, such as files, may follow it there. Its reply is one line of JSON after a
random marker; `fleet.reach.answers` reads it.

Files do not travel by SFTP: where sshd runs an external sftp-server, a shell start-up file that prints
anything breaks it. The same exec as for everything else does not care.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from fleet.reach.remote import DEFAULT_PYTHON

PACKAGE = "fleet.hostside"
_LOADER = "import sys; s = getattr(sys.stdin, 'buffer', sys.stdin); exec(s.read(int(s.readline())))"
"""Reads a program of a given length, so that data may follow it. Understood by every Python."""

PYTHON_ARGUMENTS = ("-I", "-S", "-c", _LOADER)
"""Isolated: neither the environment nor the user's site-packages bend what runs."""


def frame(program: str) -> bytes:
    """What goes to the standard input for a program, before any data."""
    text = program.encode()
    return b"%d\n%s" % (len(text), text)


def remote_command(python: str = DEFAULT_PYTHON) -> str:
    """The only command line ever run over SSH: the host's Python, reading its program from standard input.

    Parameters
    ----------
    python
        A name for PATH, or a path; a leading ``~/`` is the home directory on the host.
    """
    executable = f"~/{shlex.quote(python[2:])}" if python.startswith("~/") else shlex.quote(python)
    return f"exec {executable} {shlex.join(PYTHON_ARGUMENTS)}"


# The first lines must be readable by any Python, also version 2, so that an old one says so itself.
_BOOTSTRAP = """\
import sys
if sys.version_info < (3, 10):
    sys.stdout.write("\\n{marker} {too_old}\\n" % sys.version_info[:2])
    sys.stdout.flush()
    sys.exit(0)
import base64, json, types, zlib
modules, request = (json.loads(zlib.decompress(base64.b64decode(part))) for part in ("{modules}", "{request}"))
for name, text in modules:
    module = types.ModuleType(name)
    module.__path__ = []
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)
common = sys.modules["{package}.common"]
action = sys.modules["{package}.{action}"]
common.run(action.main, request, "{marker}")
"""
_TOO_OLD = '{{\\"ok\\": false, \\"too_old\\": \\"%d.%d\\"}}'
_IMPORT = re.compile(rf"^from {re.escape(PACKAGE)}(?:\.(\w+))? import \(?([^)\n]*)", re.MULTILINE)
"""With the module's name, or without it and the names of modules; the latter stand on one line."""


def build_program(action: str, request: Mapping[str, Any], marker: str, source: Callable[[str], str]) -> str:
    """Build the text that does one action on a host.

    Parameters
    ----------
    action
        Name of a module of `fleet.hostside` with a function ``main(request)``.
    request
        Goes there as JSON.
    marker
        A random word without spaces, quotes or percent signs, before each line of the reply.
    source
        Gives the text of a module of that package, such as `fleet.hostside.source`.
    """
    return _BOOTSTRAP.format(
        marker=marker,
        modules=_modules(action, source),
        request=_packed(dict(request)),
        package=PACKAGE,
        action=action,
        too_old=_TOO_OLD.format(),
    )


@cache
def _modules(action: str, source: Callable[[str], str]) -> str:
    """The modules an action needs, packed once for all hosts."""
    modules = [("fleet", ""), (PACKAGE, "")]
    return _packed(modules + [(f"{PACKAGE}.{name}", source(name)) for name in _needed(action, source)])


def _packed(content: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(content).encode(), 6)).decode()


def _needed(action: str, source: Callable[[str], str]) -> list[str]:
    """The modules an action imports from its package, each after those that it imports itself."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for neighbour in _neighbours(source(name)):
                visit(neighbour)
            order.append(name)

    visit("common")
    visit(action)
    return order


def _neighbours(text: str) -> Iterator[str]:
    """Modules of the package that a module imports; as text, since ast.parse fails at times in several threads."""
    for module, names in _IMPORT.findall(text):
        yield from [module] if module else [name.strip() for name in names.split(",")]
