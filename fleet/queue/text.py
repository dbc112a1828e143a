"""Words for what is in a queue; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from puffin.documents import Model


def model_text(model: Mapping[str, str]) -> str:
    """The fields of a model that say something.

    Parameters
    ----------
    model
        All of its fields.
    """
    usual = asdict(Model())
    told = ("program", "method_family", "method", "basis_set")
    words = [f"{name}={model[name]}" for name in told if model.get(name)]
    words += [f"{name}={value}" for name, value in model.items() if name not in told and value != usual.get(name)]
    return ", ".join(words)
