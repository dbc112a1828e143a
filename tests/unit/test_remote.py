"""The protocol of programs: what is sent runs in a Python, and what comes back is found and judged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fleet.errors import RemoteError
from fleet.hostside import source
from fleet.reach import answers, packing, remote
from fleet.reach.remote import CommandResult

MARKER = "puffin-0123"
SOURCES = {
    "common": source("common"),
    "other": """\
from fleet.hostside.common import Failure

def _name():
    return "other"

prefix = _name() + " "
""",
    "echo": """\
from __future__ import annotations
from fleet.hostside import other
from fleet.hostside.common import Failure, Json

def _name():
    return "echo"

def main(request):
    if "fail" in request:
        raise Failure("it is broken", "echoing", "mend it")
    if "crash" in request:
        return {"value": 1 / 0}
    return {"text": other.prefix + _name() + " " + request["text"]}
""",
}


def run(program: str) -> CommandResult:
    done = subprocess.run(
        [sys.executable, *packing.PYTHON_ARGUMENTS], input=packing.frame(program), capture_output=True, cwd="/"
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)


def ask(**request: str) -> dict[str, object]:
    program = packing.build_program("echo", request, MARKER, SOURCES.__getitem__)
    return answers.parse_reply("node1", "echo", run(program), MARKER, "python3")


@pytest.mark.parametrize("text", ["plain", 'it\'s "quoted" 100% {braces}\n\\ $HOME `x`', "Käfer ☃", ""])
def test_a_request_arrives_unchanged_and_modules_keep_their_own_names(text: str) -> None:
    assert ask(text=text)["text"] == f"other echo {text}"


def test_a_failure_becomes_an_error_with_step_and_hint() -> None:
    with pytest.raises(remote.ActionFailed, match="node1: echoing: it is broken\n  mend it"):
        ask(fail="yes")


def test_an_unexpected_exception_is_reported_by_its_last_line() -> None:
    with pytest.raises(remote.ActionFailed, match="ZeroDivisionError: division by zero"):
        ask(crash="yes")


def test_secrets_are_not_readable_in_the_command_line() -> None:
    assert "secret" not in packing.remote_command("python3")
    program = packing.build_program("echo", {"text": "secret"}, MARKER, SOURCES.__getitem__)
    assert "secret" not in program


@pytest.mark.parametrize(
    ("python", "start"),
    [
        ("python3", "exec python3 -I"),
        ("/opt/my python/bin/python3", "exec '/opt/my python/bin/python3' -I"),
        ("~/venv one/bin/python", "exec ~/'venv one/bin/python' -I"),
        ("python3; rm -rf /", "exec 'python3; rm -rf /' -I"),
    ],
)
def test_the_command_line_is_quoted(python: str, start: str) -> None:
    assert packing.remote_command(python).startswith(start)


def test_an_old_python_says_so_itself() -> None:
    """The first lines run in any Python; a changed version stands for an old one."""
    program = packing.build_program("echo", {}, MARKER, SOURCES.__getitem__)
    old = program.replace("import sys\n", "import sys\nsys.version_info = (3, 6, 9)\n", 1)
    with pytest.raises(remote.NoPythonError, match=r"no Python >= 3.10 called 'python3' on node1 \(it is 3.6\)"):
        answers.parse_reply("node1", "echo", run(old), MARKER, "python3")


def test_the_first_lines_are_readable_by_old_pythons() -> None:
    """No syntax or import younger than Python 2 before the version is checked."""
    first = packing.build_program("echo", {}, MARKER, SOURCES.__getitem__).split("import base64")[0]
    assert "f'" not in first
    assert 'f"' not in first
    assert first.count("import") == 1


NOISE = b'Welcome!\n{"ok": true}\npuffin-9999 {"ok": true}\n'


@pytest.mark.parametrize(
    ("stdout", "reply"),
    [
        (b'\npuffin-0123 {"ok": true, "a": 1}\n', 1),
        (NOISE + b'no newline at its end\npuffin-0123 {"ok": true, "a": 2}\nlogout\n', 2),
        (b'\xff\xfe\n\npuffin-0123 {"ok": true, "a": 3}\r\n', 3),
    ],
)
def test_the_reply_is_found_among_noise(stdout: bytes, reply: int) -> None:
    assert answers.parse_reply("h", "probe", CommandResult(0, stdout, b""), MARKER, "python3")["a"] == reply


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (CommandResult(127, b"", b"bash: python3: not found"), remote.NoPythonError, "install it or set release"),
        (CommandResult(126, b"", b""), remote.NoPythonError, "no Python >= 3.10 called 'python3' on h"),
        (CommandResult(1, b"", b"python3: Command not found."), remote.NoPythonError, "called 'python3'"),
        (CommandResult(2, b"", b"Unknown option: -I"), remote.NoPythonError, "called 'python3'"),
        (CommandResult(1, NOISE, b"Traceback\nMemoryError"), remote.ActionFailed, "without a reply .status 1.*"),
        (CommandResult(1, b"", b"Traceback\nMemoryError"), remote.ActionFailed, "MemoryError"),
        (CommandResult(0, b"puffin-0123 {broken", b""), remote.ActionFailed, "not JSON"),
        (CommandResult(0, b"puffin-0123 []", b""), remote.ActionFailed, "not a JSON object"),
        (CommandResult(0, b'puffin-0123 {"a": 1}', b""), remote.ActionFailed, "neither"),
    ],
)
def test_what_is_no_reply_is_an_error(result: CommandResult, error: type[RemoteError], message: str) -> None:
    with pytest.raises(error, match=message):
        answers.parse_reply("h", "probe", result, MARKER, "python3")


def test_entries_of_a_stream_are_found_across_chunks() -> None:
    text = NOISE + b"".join(b"\n%s %s\n" % (MARKER.encode(), json.dumps({"n": n}).encode()) for n in range(3))
    chunks = [text[start : start + 7] for start in range(0, len(text), 7)]
    assert list(answers.parse_stream("h", "tail", chunks, MARKER)) == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("chunk", [b"y" * 700_000, b"y\n" * 1000])
def test_noise_without_end_ends_a_stream(chunk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_OUTPUT", 2_000_000)
    closed = []

    def chunks() -> Iterator[bytes]:
        try:
            yield b'puffin-0123 {"n": 1}\n'
            while True:
                yield chunk
        finally:
            closed.append(True)

    found = answers.parse_stream("node1", "tail", chunks(), "puffin-0123")
    assert next(found) == {"n": 1}
    with pytest.raises(remote.ActionFailed, match=r"node1: run: .* writes without end"):
        next(found)
    assert closed == [True]


def test_a_failure_in_a_stream_is_raised() -> None:
    failure = b'puffin-0123 {"ok": false, "error": {"what": "no such file", "step": "", "hint": ""}}\n'
    with pytest.raises(remote.ActionFailed, match="h: tail: no such file"):
        list(answers.parse_stream("h", "tail", [failure], MARKER))
