"""Programs that run on the hosts: standard library only, sent over the connection with each request.

One runs there without being sent: `bin/boot` starts `fleet.hostside.startup` of the present release.

The reading of their sources is the only thing here; each module says in its docstring what it is asked and
what it replies.
"""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def source(name: str) -> str:
    """Text of one module of this package, for `fleet.reach.packing.build_program`.

    Parameters
    ----------
    name
        Its name.
    """
    return resources.files(__name__).joinpath(f"{name}.py").read_text(encoding="utf-8")
