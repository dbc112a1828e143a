"""Stands in for packages that scine-puffin imports where few of its jobs use them.

All reaction jobs of scine-puffin 2.1 import pymatgen, half a gigabyte with what it requires, but only calculations
on periodic slabs use it; one job imports GitPython, which none uses. Where they are not installed, modules stand in
whose classes say so as soon as they are used.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

_STAND_INS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "git": {"git": ()},
    "pymatgen": {"pymatgen": (), "pymatgen.core": ("Lattice",), "pymatgen.core.surface": ("Slab",)},
}


def provide() -> None:
    """Stand in for what is not installed, in this process."""
    for package, modules in _STAND_INS.items():
        if find_spec(package) is None:
            sys.modules.update({name: _module(name, classes, package) for name, classes in modules.items()})


def _module(name: str, classes: tuple[str, ...], package: str) -> ModuleType:
    module = ModuleType(name, f"Stands in for {name}.")
    module.__spec__ = ModuleSpec(name, loader=None, is_package=True)
    module.__path__ = []
    for class_name in classes:
        setattr(module, class_name, _class(class_name, package))
    return module


def _class(name: str, package: str) -> type:
    def refuse(*_arguments: Any, **_options: Any) -> NoReturn:
        message = f"{package} is not installed, and calculations on periodic slabs need it: install it for the worker"
        raise ImportError(message, name=package)

    return type(name, (), {"__init__": refuse, "from_dict": staticmethod(refuse)})
