"""The directions in the design, enforced: who may import whom, and what a pure module may not touch."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("puffin", "fleet")

MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def map_of_the_source(text: str) -> dict[str, bool]:
    """What stands in the tables of modules, as paths, a whole folder with a slash at its end; and what is marked pure.

    A name without a folder belongs to that of the name before it.
    """
    found: dict[str, bool] = {}
    for line in text.splitlines():
        cell = line.split("|")[1] if line.startswith("| `") else ""
        folder = ""
        for name, mark in re.findall(r"`([\w/]+)`( P\b)?", cell):
            path = name if "/" in name.rstrip("/") else f"{folder}/{name}"
            folder = path.rstrip("/").rpartition("/")[0]
            if path.startswith(tuple(f"{package}/" for package in PACKAGES)):
                found[path] = bool(mark)
    return found


STANDS_THERE = map_of_the_source(MAP)
PURE = tuple(path.replace("/", ".") for path, pure in STANDS_THERE.items() if pure)

# Files, network, clocks, processes, threads, randomness, the environment.
_IMPURE_BY_KIND = (
    ("os", "io", "sys", "shutil", "tempfile", "glob", "fcntl", "mmap", "logging", "importlib", "platform"),
    ("socket", "ssl", "select", "selectors", "http", "urllib", "ftplib", "smtplib", "xmlrpc", "requests"),
    ("subprocess", "multiprocessing", "threading", "concurrent", "asyncio", "signal", "psutil", "ctypes"),
    ("time", "sched", "random", "secrets", "getpass", "pwd", "grp", "resource", "sqlite3", "dbm", "shelve"),
)
IMPURE = frozenset(name for kind in _IMPURE_BY_KIND for name in kind)
IMPURE_CALLS = frozenset({"open", "input", "print", "exec", "eval", "__import__"})
# Of datetime and date, whatever they were imported as.
CLOCKS = frozenset({"now", "utcnow", "today"})
PURE_ALL_THE_SAME = frozenset({"urllib.parse"})
PURE_PATHS = frozenset({"PurePath", "PurePosixPath"})

# Who alone may import a driver: "package.module", or "package.*" for everything below.
DRIVERS: dict[str, tuple[str, ...]] = {
    "pymongo": ("puffin.store.*",),
    "bson": ("puffin.store.*",),
    "gridfs": ("puffin.store.*",),
    "fabric": ("fleet.reach.ssh",),
    "invoke": ("fleet.reach.ssh",),
    "paramiko": ("fleet.reach.ssh",),
    "click": ("puffin.cli", "fleet.cli.*"),
    "rich": ("fleet.cli.*",),
    "textual": ("fleet.cli.top.*",),
    "scine_*": ("puffin.jobs.scine", "puffin.programs.*", "fleet.queue.chemistry"),
    "secantus": (),  # another license: run as a process, never imported
    "supervisor": (),  # spoken to over its socket
}

# Packages of fleet, the lowest first: each imports itself and those below it; of one line, none the other.
LAYERS = (
    ("errors", "shapes", "words", "interruption", "hostside"),
    ("reach", "queue"),
    ("hosts", "release"),
    ("deployment",),
    ("watch",),
    ("operation", "notify"),
    ("embedded",),
    ("demo",),
    ("cli",),
)

# fleet reads the database through the worker's one door to it, so that no second driver module appears.
FLEET_MAY_IMPORT = frozenset(
    {
        "puffin",
        "puffin.backlog",
        "puffin.calculations",
        "puffin.changes",
        "puffin.documents",
        "puffin.entries",
        "puffin.indexes",
        "puffin.errors",
        "puffin.hints",
        "puffin.lease",
        "puffin.outcomes",
        "puffin.overlay",
        "puffin.patterns",
        "puffin.progress",
        "puffin.records",
        "puffin.settings",
        "puffin.severity",
        "puffin.store",
        "puffin.submissions",
    }
)


@dataclass(frozen=True)
class Import:
    """One imported module; ``names`` is what a ``from`` import takes from it."""

    line: int
    target: str
    names: tuple[str, ...]
    deferred: bool = False
    """Inside a function, or for the type checker only: not run when the module is loaded."""
    erased: bool = False
    """For the type checker only: never run."""


@dataclass(frozen=True)
class Module:
    name: str
    imports: tuple[Import, ...]
    calls: tuple[tuple[int, str], ...]
    """Of functions by their names, and of methods by theirs after a dot."""


# Parsing -----------------------------------------------------------------------------------------------


def module_of(name: str, source: str, known: Iterable[str]) -> Module:
    tree = ast.parse(source)
    erased = {id(inner) for node in ast.walk(tree) if _is_erased(node) for inner in ast.walk(node)}
    deferred = {id(inner) for node in ast.walk(tree) if _is_function(node) for inner in ast.walk(node)}
    imports = tuple(
        replace(found, deferred=id(node) in deferred | erased, erased=id(node) in erased)
        for node in ast.walk(tree)
        for found in _imports(node, name, frozenset(known))
    )
    return Module(name, imports, tuple(_calls(tree)))


def _calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.lineno, node.func.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.lineno, f".{node.func.attr}"


def _is_erased(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


def _imports(node: ast.AST, name: str, known: frozenset[str]) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(node.lineno, alias.name, ())
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            base = ".".join([*name.split(".")[: -node.level], *([base] if base else [])])
        names = tuple(alias.name for alias in node.names)
        modules = [alias for alias in names if f"{base}.{alias}" in known]
        for module in modules:
            yield Import(node.lineno, f"{base}.{module}", ())
        if len(modules) < len(names):
            yield Import(node.lineno, base, tuple(n for n in names if n not in modules))


def load(root: Path) -> dict[str, Module]:
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    plugins = sorted((root / "ansible" / "plugins").rglob("*.py"))
    files |= {".".join(("collection", *path.relative_to(root).with_suffix("").parts[1:])): path for path in plugins}
    return {name: module_of(name, path.read_text(encoding="utf-8"), files) for name, path in files.items()}


# Rules: each takes all modules and yields one line per violation ---------------------------------------


def wrong_directions(modules: Mapping[str, Module]) -> Iterator[str]:
    for module, found in _all_imports(modules):
        package, target = module.name.split(".")[0], found.target.split(".")[0]
        if package == "puffin" and target == "fleet":
            yield _violation(module, found, "puffin never imports fleet")
        if package == "fleet" and target == "puffin" and found.target not in FLEET_MAY_IMPORT:
            yield _violation(module, found, "fleet imports only pure modules of puffin, puffin.store and puffin.errors")


def wrong_layers(modules: Mapping[str, Module]) -> Iterator[str]:
    layer = {package: at for at, packages in enumerate(LAYERS) for package in packages}
    for module, found in _all_imports(modules):
        if not (module.name.startswith("fleet.") and found.target.startswith("fleet.")):
            continue
        own, target = module.name.split(".")[1], found.target.split(".")[1]
        if own not in layer:
            yield f"{module.name} is in no package that LAYERS names"
        elif own != target and layer.get(target, len(LAYERS)) >= layer[own]:
            yield _violation(module, found, "dependencies point downwards, see LAYERS")


def stray_drivers(modules: Mapping[str, Module]) -> Iterator[str]:
    for module, found in _all_imports(modules):
        for driver, allowed in DRIVERS.items():
            if _matches(found.target.split(".")[0], driver) and not any(
                _matches(module.name, pattern) for pattern in allowed
            ):
                yield _violation(module, found, f"only {', '.join(allowed) or 'nobody'} may")


def impurities(modules: Mapping[str, Module]) -> Iterator[str]:
    for name in sorted(_reached_from(PURE, modules)):
        module = modules[name]
        for found in (found for found in module.imports if not found.erased):
            head = found.target.split(".")[0]
            if found.target in PURE_ALL_THE_SAME:
                continue
            if head in IMPURE or (head == "pathlib" and not set(found.names or ("*",)) <= PURE_PATHS):
                yield _violation(module, found, "pure modules, and what they import, touch nothing outside")
        for line, function in module.calls:
            if function in IMPURE_CALLS or function in {f".{clock}" for clock in CLOCKS}:
                yield f"{name}:{line} calls {function}(): pure modules touch nothing outside"


SLOW_TO_IMPORT = {"dataclasses", "inspect", "traceback"}
"""Took longer than many a program for hosts, of which a deploy starts ten on each."""


def foreign_host_code(modules: Mapping[str, Module]) -> Iterator[str]:
    for module, found in _all_imports(modules):
        if not _matches(module.name, "fleet.hostside.*"):
            continue
        own = _matches(found.target, "fleet.hostside.*")
        if not own and found.target.split(".")[0] not in sys.stdlib_module_names:
            yield _violation(module, found, "code that runs on hosts imports the standard library only")
        if found.target.split(".")[0] in SLOW_TO_IMPORT:
            yield _violation(module, found, "code that runs on hosts starts quickly")


def foreign_collection_code(modules: Mapping[str, Module]) -> Iterator[str]:
    for module, found in _all_imports(modules):
        if not _matches(module.name, "collection.*"):
            continue
        own = any(_matches(found.target, pattern) for pattern in ("ansible.*", "ansible_collections.puffin.fleet.*"))
        # PyYAML comes with Ansible.
        if not own and found.target.split(".")[0] not in {*sys.stdlib_module_names, "yaml"}:
            yield _violation(module, found, "Ansible may run in another environment than puffin-fleet, so call that")


def cycles(modules: Mapping[str, Module]) -> Iterator[str]:
    graph = {
        name: {found.target for found in module.imports if not found.deferred and found.target in modules}
        for name, module in modules.items()
    }
    for name in sorted(graph):
        path = _way_back(name, graph)
        if path and name == min(path):
            yield f"import cycle: {' -> '.join([*path, name])}"


def _all_imports(modules: Mapping[str, Module]) -> Iterator[tuple[Module, Import]]:
    for module in modules.values():
        for found in module.imports:
            yield module, found


def _matches(name: str, pattern: str) -> bool:
    if pattern.endswith(".*"):
        return name == pattern[:-2] or name.startswith(pattern[:-1])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _violation(module: Module, found: Import, rule: str) -> str:
    return f"{module.name}:{found.line} imports {found.target}: {rule}"


def _reached_from(names: Iterable[str], modules: Mapping[str, Module]) -> set[str]:
    reached: set[str] = set()
    waiting = [name for name in names if name in modules]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            imports = [found for found in modules[name].imports if not found.erased]
            waiting += [found.target for found in imports if found.target in modules]
    return reached


def _way_back(start: str, graph: Mapping[str, set[str]]) -> list[str]:
    """Return the shortest path from a module to one that imports it, or nothing."""
    paths = [[start]]
    seen = {start}
    for path in paths:
        for target in sorted(graph[path[-1]]):
            if target == start:
                return path
            if target not in seen:
                seen.add(target)
                paths.append([*path, target])
    return []


RULES = {
    rule.__name__: rule
    for rule in (
        wrong_directions,
        wrong_layers,
        stray_drivers,
        impurities,
        foreign_host_code,
        foreign_collection_code,
        cycles,
    )
}


# The project keeps the rules ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    found = load(ROOT)
    assert {"puffin", "fleet", "collection.plugins.modules.puffin_fleet"} <= set(found)
    return found


@pytest.mark.parametrize("rule", RULES)
def test_the_source_keeps(rule: str, modules: dict[str, Module]) -> None:
    assert list(RULES[rule](modules)) == []


# The rules catch what they are for ---------------------------------------------------------------------

VIOLATIONS = [
    ("wrong_directions", {"puffin.daemon": "import fleet.deployment.plan"}),
    ("wrong_directions", {"puffin.daemon": "def f():\n    from fleet import plan", "fleet.deployment.plan": ""}),
    ("wrong_directions", {"fleet.watch.status": "from puffin.jobloop import loop"}),
    ("wrong_directions", {"fleet.watch.status": "from puffin import runner", "puffin.runner": "", "puffin": ""}),
    ("wrong_layers", {"fleet.hosts.layout": "from fleet.watch.status import f", "fleet.watch.status": ""}),
    ("wrong_layers", {"fleet.operation.ps": "from fleet.notify.say import f", "fleet.notify.say": ""}),
    ("wrong_layers", {"fleet.elsewhere.helper": "from fleet.errors import FleetError", "fleet.errors": ""}),
    ("stray_drivers", {"puffin.daemon": "import pymongo"}),
    ("stray_drivers", {"puffin.daemon": "from bson.objectid import ObjectId"}),
    ("stray_drivers", {"fleet.reach.remote": "from paramiko.client import SSHClient"}),
    ("stray_drivers", {"fleet.watch.status": "from rich.table import Table"}),
    ("stray_drivers", {"fleet.watch.status": "import click"}),
    ("stray_drivers", {"fleet.cli.status": "from textual.app import App"}),
    ("stray_drivers", {"puffin.runner": "import scine_utilities as su"}),
    ("stray_drivers", {"fleet.embedded": "from secantus import cli"}),
    ("impurities", {"fleet.deployment.plan": "import os"}),
    ("impurities", {"fleet.deployment.plan": "import os.path"}),
    ("impurities", {"fleet.deployment.plan": "from pathlib import Path"}),
    ("impurities", {"fleet.deployment.plan": "import pathlib"}),
    ("impurities", {"fleet.deployment.plan": "from urllib.request import urlopen"}),
    ("impurities", {"puffin.lease": "def f():\n    from time import monotonic"}),
    ("impurities", {"fleet.deployment.plan": "text = open('hosts.yaml')"}),
    ("impurities", {"fleet.deployment.plan": "from datetime import datetime\nat = datetime.now()"}),
    ("impurities", {"fleet.deployment.plan": "import datetime as d\nat = d.datetime.utcnow()"}),
    ("impurities", {"fleet.deployment.plan": "from datetime import date\nat = date.today()"}),
    ("impurities", {"fleet.deployment.plan": "from fleet.helper import x", "fleet.helper": "import socket"}),
    ("impurities", {"fleet.deployment.plan": "from .helper import x", "fleet.deployment.helper": "import socket"}),
    ("foreign_host_code", {"fleet.hostside.apply": "import yaml"}),
    ("foreign_host_code", {"fleet.hostside.apply": "from fleet.errors import FleetError"}),
    ("foreign_host_code", {"fleet.hostside.apply": "from dataclasses import dataclass"}),
    ("foreign_collection_code", {"collection.plugins.modules.m": "from fleet.deployment.plan import HostPlan"}),
    ("foreign_collection_code", {"collection.plugins.modules.m": "import puffin"}),
    ("cycles", {"fleet.a": "import fleet.b", "fleet.b": "from fleet import a"}),
    ("cycles", {"fleet.a": "import fleet.b", "fleet.b": "import fleet.c", "fleet.c": "import fleet.a"}),
    ("cycles", {"fleet.a": "import fleet.a"}),
]

ALLOWED = [
    ("wrong_directions", {"fleet.watch.status": "from puffin.store import Registry\nfrom puffin import __version__"}),
    ("wrong_directions", {"fleet.watch.status": "from puffin.errors import DatabaseError"}),
    ("stray_drivers", {"puffin.store.driver": "import pymongo\nfrom bson import ObjectId"}),
    ("stray_drivers", {"fleet.cli": "import click", "fleet.cli.status": "import rich.live\nimport click"}),
    ("stray_drivers", {"fleet.cli.top.app": "from textual.app import App"}),
    ("stray_drivers", {"puffin.programs.orca": "import scine_utilities", "fleet.deployment.plan": "import richness"}),
    (
        "impurities",
        {"fleet.deployment.plan": "from pathlib import PurePosixPath\nimport re, yaml\nfrom urllib.parse import quote"},
    ),
    ("impurities", {"fleet.reach.ssh": "import os, socket"}),
    ("impurities", {"fleet.deployment.plan": "if TYPE_CHECKING:\n    from pathlib import Path"}),
    ("foreign_host_code", {"fleet.hostside.apply": "import os\nfrom fleet.hostside.common import main"}),
    ("foreign_host_code", {"fleet.deployment.plan": "import yaml"}),
    (
        "foreign_collection_code",
        {"collection.plugins.modules.m": "import json\nfrom ansible.errors import AnsibleError"},
    ),
    ("cycles", {"fleet.a": "import fleet.b", "fleet.b": "def f():\n    import fleet.a"}),
    (
        "cycles",
        {
            "fleet.a": "import fleet.b",
            "fleet.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fleet.a",
        },
    ),
]


def _sample(sources: Mapping[str, str]) -> dict[str, Module]:
    return {name: module_of(name, source, sources) for name, source in sources.items()}


@pytest.mark.parametrize(("rule", "sources"), VIOLATIONS)
def test_a_violation_is_caught(rule: str, sources: dict[str, str]) -> None:
    assert len(list(RULES[rule](_sample(sources)))) == 1


@pytest.mark.parametrize(("rule", "sources"), ALLOWED)
def test_what_is_allowed_passes(rule: str, sources: dict[str, str]) -> None:
    assert list(RULES[rule](_sample(sources))) == []


def test_a_violation_names_file_line_and_rule() -> None:
    modules = _sample({"fleet.deployment.plan": "import re\nimport socket\n"})
    assert list(impurities(modules)) == [
        "fleet.deployment.plan:2 imports socket: pure modules, and what they import, touch nothing outside"
    ]


def ignores_without_reason(lines: list[str]) -> Iterator[int]:
    """Lines on which a tool is told to look away, and nobody is told why: neither behind it nor right above it."""
    for number, line in enumerate(lines, 1):
        told = re.search(r"# (?:noqa|type: ignore)(?:: [A-Z]+\d+(?:, [A-Z]+\d+)*|\[[a-z, -]+\])?(.*)", line)
        above = lines[number - 2].strip() if number > 1 else ""
        if told and not re.match(r"(?: -|  #) \w", told[1]) and not above.startswith("# "):
            yield number


def test_every_ignore_has_its_reason() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for package in ("puffin", "fleet", "ansible")
        for path in sorted((ROOT / package).rglob("*.py"))
        for number in ignores_without_reason(path.read_text(encoding="utf-8").splitlines())
    ]
    assert found == []


def test_an_ignore_without_reason_is_found() -> None:
    lines = ["a  # noqa: S101", "b  # noqa: S101 - ours", "# Why.", "c  # type: ignore[misc]", "d  # noqa"]
    assert list(ignores_without_reason(lines)) == [1, 5]


def test_the_map_of_the_source_is_complete() -> None:
    paths = {
        path.relative_to(ROOT).with_suffix("").as_posix(): path.stem
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert {path for path, stem in paths.items() if stem != "__init__" and not _stands_there(PurePath(path))} == set()
    folders = {f"{folder}/" for path in paths for folder in PurePath(path).parents}
    assert set(STANDS_THERE) - set(paths) - folders == set()


def _stands_there(module: PurePath) -> bool:
    """Whether a module is in the map itself, or with its whole folder."""
    return str(module) in STANDS_THERE or any(f"{folder}/" in STANDS_THERE for folder in module.parents)


def test_all_modules_that_rules_name_exist(modules: dict[str, Module]) -> None:
    """One that was renamed would drop out of the rules without a word."""
    importers = {pattern.removesuffix(".*") for allowed in DRIVERS.values() for pattern in allowed}
    layers = {f"fleet.{package}" for packages in LAYERS for package in packages}
    assert {*PURE, *FLEET_MAY_IMPORT, *importers, *layers} - set(modules) == set()
    assert len(PURE) > 50


def test_fleet_imports_pure_modules_of_the_worker_and_two_others() -> None:
    pure = {name for name in PURE if name.startswith("puffin.")}
    assert FLEET_MAY_IMPORT - pure == {"puffin", "puffin.store", "puffin.errors"}


def test_marks_are_read_from_the_map() -> None:
    rows = "| `puffin/a` P, `b` | x |\n| `puffin/c/` `fleet/d` P `e` P | `f` |\n| `ansible/g` P | |\n"
    assert map_of_the_source(rows) == {
        "puffin/a": True,
        "puffin/b": False,
        "puffin/c/": False,
        "fleet/d": True,
        "fleet/e": True,
    }
