"""What begins with an underscore is its own module's business."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_no_module_imports_what_is_private_to_another() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name.name}"
        for package in ("puffin", "fleet")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if name.name.startswith("_") and not name.name.startswith("__")
    ]
    assert found == []
