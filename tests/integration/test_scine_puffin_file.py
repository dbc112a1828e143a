"""The puffin.yaml that scine-puffin writes is accepted as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from puffin.config import Configuration


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("scine_puffin")
    file = tmp_path_factory.mktemp("scine") / "puffin.yaml"
    words = [sys.executable, "-m", "scine_puffin", "-c", str(file), "configure"]
    subprocess.run(words, check=True, capture_output=True, cwd=file.parent)
    return file


def leaves(content: Any, *above: str) -> dict[tuple[str, ...], Any]:
    if not isinstance(content, dict):
        return {above: content}
    return {path: value for key, inner in content.items() for path, value in leaves(inner, *above, key).items()}


def test_every_key_keeps_its_value(written: Path) -> None:
    config = Configuration()
    config.load(str(written))
    theirs = leaves(yaml.safe_load(written.read_text()))
    assert len(theirs) > 100
    ours = leaves(yaml.safe_load(config.to_yaml()))
    assert {path: ours.get(path) for path in theirs} == theirs


def test_the_command_takes_it(written: Path) -> None:
    """Sources that are git repositories need not be there: the wheels that are installed will do."""
    command = Path(sys.executable).with_name("puffin")
    done = subprocess.run([command, "-c", written, "jobs"], capture_output=True, text=True, cwd=written.parent)
    assert done.returncode == 0, done.stderr
    accepted = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("  accepted")]
    assert {"scine_single_point", "scine_geometry_optimization", "scine_hessian", "sleep"} <= set(accepted)
