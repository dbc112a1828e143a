"""Many names of hosts in few words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)\Z")
_FEWEST = 3


def condensed(names: Sequence[str]) -> str:
    """Names as hosts.yaml would write them: ``node[01-40], big1``.

    Parameters
    ----------
    names
        Names of hosts.

    Returns
    -------
    str
        Ranges where at least three names follow each other, in the order of the names.
    """
    return ", ".join(_runs(names))


def _runs(names: Sequence[str]) -> Iterator[str]:
    run: list[str] = []
    for name in names:
        if run and not _follows(run[-1], name):
            yield from _written(run)
            run = []
        run.append(name)
    yield from _written(run)


def _follows(first: str, second: str) -> bool:
    one, two = _NUMBERED.match(first), _NUMBERED.match(second)
    if one is None or two is None or one.group(1, 3) != two.group(1, 3):
        return False
    return f"{int(one.group(2)) + 1:0{len(one.group(2))}d}" == two.group(2)


def _written(run: Sequence[str]) -> Iterator[str]:
    if len(run) < _FEWEST:
        yield from run
        return
    first, last = _NUMBERED.match(run[0]), _NUMBERED.match(run[-1])
    # Names without zeros in front change their width on the way from 9 to 10, which a range writes as it is.
    if first is None or last is None:
        yield from run
        return
    yield f"{first.group(1)}[{first.group(2)}-{last.group(2)}]{first.group(3)}"
