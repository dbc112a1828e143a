"""How a file changes, as a diff with its secrets hidden. Pure.

What is hidden is found by its key: what follows ``password:``, ``API_TOKEN=`` and their like, down to the last
line of it, and passwords in addresses. That a secret changes is still seen: both lines stand in the diff, and the new
one says so.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

from fleet.deployment.manifest import FileState
from fleet.deployment.plan import HostPlan, WriteReason
from fleet.hosts.render import RenderedFile
from fleet.words import plain

MASK = "(hidden)"
MASK_CHANGED = "(hidden, changed)"
_SECRET_KEY = re.compile(
    r"""["']?\w*(?:password|passwd|passphrase|secret|token|credential|(?:api|access|private)_?key)\w*["']?\s*[:=]""",
    re.IGNORECASE,
)
# Names of variables are often short: PGPASS, DB_PWD, BASIC_AUTH, LICENSE_KEY.
_SECRET_VARIABLE = re.compile(r"\b\w*(?:pass|pwd|auth|cookie|_pin|_key|^key)(?:_\w*)?=", re.IGNORECASE)
# A digest of variables among which there may be secrets: one that is short could be guessed from it.
_DIGEST = re.compile(r"^(# environment: )[0-9a-f]+$")
_SECRET_IN_ADDRESS = re.compile(r"(\w+://[^/@:\s]*:)[^/@\s]+(?=@)")
_AROUND = 3


def diffs(plan: HostPlan, texts: Mapping[str, str | None], there: Mapping[str, FileState]) -> dict[str, str]:
    """Show how every file that a plan writes changes.

    Parameters
    ----------
    plan
        The plan of one host.
    texts
        Content on the host of the files named by `wanted_texts`.
    there
        State of the files on the host.

    Returns
    -------
    dict
        By path: a unified diff; for a file of which only the permissions change, these.
    """
    found = {}
    for write in plan.files_to_write:
        file = write.file
        if write.reason is WriteReason.MODE:
            found[file.path] = f"old mode {there[file.path].mode:04o}\nnew mode {file.mode:04o}\n"
        elif file.secret:
            found[file.path] = _header(file, write.reason is WriteReason.NEW) + f"{MASK}\n"
        else:
            text = texts.get(file.path)
            found[file.path] = unified_diff(file, None if text is None else text.encode())
    return found


def wanted_texts(plan: HostPlan) -> tuple[str, ...]:
    """The files whose content on the host is needed for `diffs`; never a secret one."""
    changed = (write.file for write in plan.files_to_write if write.reason is WriteReason.CHANGED)
    return tuple(file.path for file in changed if not file.secret)


def unified_diff(file: RenderedFile, before: bytes | None) -> str:
    """Show how a file changes, with secrets hidden.

    Parameters
    ----------
    file
        As it shall be.
    before
        Its content on the host; None where it is not there.

    Returns
    -------
    str
        A unified diff, empty where nothing changes. Of a secret file only that it changes.
    """
    if before == file.content:
        return ""
    header = _header(file, before is None)
    if file.secret:
        return f"{header}{MASK}\n"
    old, new = _lines(before or b""), _lines(file.content)
    body = list(_hunks(old, new, mask_lines(old), mask_lines(new)))
    return header + "".join(f"{line}\n" for line in body or ["\\ Only the end of the last line differs"])


def _header(file: RenderedFile, new: bool) -> str:
    return f"--- {'/dev/null' if new else f'a/{file.path}'}\n+++ b/{file.path}\n"


def _lines(content: bytes) -> list[str]:
    # Not at every character that some take for the end of a line: a secret must not be cut in two.
    lines = content.decode("utf-8", "replace").split("\n")
    return lines if lines[-1] else lines[:-1]


def _hunks(old: list[str], new: list[str], shown_old: list[str], shown_new: list[str]) -> Iterator[str]:
    """Compare the true lines, show the masked ones."""
    for group in difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(_AROUND):
        first, last = group[0], group[-1]
        yield f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@"
        for tag, begin_old, end_old, begin_new, end_new in group:
            if tag == "equal":
                yield from (f" {line}" for line in shown_old[begin_old:end_old])
                continue
            before = list(zip(shown_old[begin_old:end_old], old[begin_old:end_old], strict=True))
            yield from (f"-{shown}" for shown, _ in before)
            for shown, true in zip(shown_new[begin_new:end_new], new[begin_new:end_new], strict=True):
                yield f"+{_told_apart(shown, true, before)}"


def _told_apart(shown: str, true: str, before: Sequence[tuple[str, str]]) -> str:
    """A new line that looks like an old one and is another, with words for that."""
    alike = [old for old_shown, old in before if old_shown == shown]
    if not alike or true in alike:
        return shown
    return shown.replace(MASK, MASK_CHANGED) if MASK in shown else f"{shown} {MASK_CHANGED}"


def _range(begin: int, end: int) -> str:
    count = end - begin
    if count == 1:
        return str(begin + 1)
    return f"{begin + 1 if count else begin},{count}"


def mask_secrets(line: str) -> str:
    """Hide what follows a key such as ``password:`` or ``API_TOKEN=``, and passwords in addresses."""
    line = _DIGEST.sub(rf"\1{MASK}", line)
    line = _SECRET_IN_ADDRESS.sub(rf"\1{MASK}", line)
    key = _secret_key(line)
    return line if key is None else f"{line[: key.end()]} {MASK}"


def mask_lines(lines: Sequence[str]) -> list[str]:
    """Hide secrets in the lines of a file, also those that go on over several lines; each line stays a line."""
    shown = []
    rest = _Rest()
    for line in lines:
        if rest.holds(line):
            shown.append(MASK)
            continue
        key = _secret_key(line)
        if key is not None:
            rest = _Rest.after(line, key)
        shown.append(plain(mask_secrets(line), "\t"))
    return shown


def _secret_key(line: str) -> re.Match[str] | None:
    for pattern in (_SECRET_KEY, _SECRET_VARIABLE):
        for match in pattern.finditer(line):
            if not re.search(r"password_file\W*\Z", match.group()):  # names a file; no secret itself
                return match
    return None


class _Rest:
    """What of a secret may stand in the lines after its key: to the end of its quotes, or all that is below it.

    Parameters
    ----------
    quote
        The sign that must still come, or none.
    column
        Column of the key where a block of YAML may follow it, else -1.
    """

    def __init__(self, quote: str = "", column: int = -1) -> None:
        self._quote = quote
        self._column = column

    @classmethod
    def after(cls, line: str, key: re.Match[str]) -> _Rest:
        value = line[key.end() :]
        if key.group().rstrip().endswith("="):
            return cls(_open_quote(value, ""))
        starts = value.strip()[:1]
        quote = _open_quote(value, "") if starts in ("'", '"') else ""
        return cls(quote, key.start())

    def holds(self, line: str) -> bool:
        """Whether a line still belongs to it."""
        if self._quote:
            self._quote = _open_quote(line, self._quote)
            return True
        if self._column < 0:
            return False
        indent = len(line) - len(line.lstrip(" "))
        below = indent > self._column or (indent == self._column and line.lstrip(" ").startswith("- "))
        if not below and line.strip():
            self._column = -1
        return below


def _open_quote(text: str, quote: str) -> str:
    r"""The quotation mark, or ``\`` at the end of a line, that a shell is still waiting after."""
    escaped = False
    if quote == "\\":
        quote = ""
    for sign in text:
        if escaped:
            escaped = False
        elif sign == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
    return quote or ("\\" if escaped else "")
