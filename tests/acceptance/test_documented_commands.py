"""The commands in docs/quick-start.md and docs/first-fleet.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.acceptance.commands import BIN
from tests.lab.database import DatabaseServer
from tests.lab.sshd import SshHost, end_processes

DOCS = Path(__file__).parents[2] / "docs"
NAME = "first_fleet"

# Nobody is there to be asked. A function, so that the commands stay as they are on the page.
PREPARATION = """
set -euo pipefail
puffin-fleet() {
  echo "+ puffin-fleet $*" >&2
  case $1 in
    trust|deploy|stop|destroy) command puffin-fleet "$@" --yes ;;
    *) command puffin-fleet "$@" ;;
  esac
}
"""
ALL_DONE = 'until [ -z "$(puffin-fleet queue list --status new,pending --json 2>/dev/null)" ]; do sleep 0.3; done\n'
# This machine stays as it is, and nobody waits ten seconds to see workers healthy.
MODEST = "sed -i 's/^defaults:.*/&\\n  boot: none/' hosts.yaml; echo 'update: {min_healthy_time: 1s}' >> hosts.yaml\n"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(script: str, place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-c", PREPARATION + script],
        cwd=place,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "120", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_processes(tmp_path)


def test_quick_start(place: Path) -> None:
    shown = blocks("quick-start.md")
    assert len(shown) == 5
    # The page leaves the last lines to the demo: they are run as it printed them.
    done = run("\n".join([*shown[:-1], ALL_DONE, shown[-1]]), place, TMPDIR=str(place))
    assert (place / "energies.csv").read_text().count("\n") == 1 + 20
    assert (place / "optimized.xyz").read_text().count("energy") >= 20
    ending = re.findall(r"^  ((?:export|puffin-fleet stop|kill|rm) .*?)(?:  #.*)?$", done.stderr, re.MULTILINE)
    assert len(ending) == 4, done.stderr
    run("\n".join(ending), place)
    assert list(place.glob("puffin-demo-*")) == []


@pytest.fixture
def home(place: Path, node: SshHost) -> Mapping[str, str]:
    """The environment of a user whose SSH knows where node1 is, but not its key."""
    ssh = place / "home" / ".ssh"
    ssh.mkdir(parents=True, mode=0o700)
    key = ssh / "id_ed25519"
    key.write_bytes(node.key.read_bytes())
    key.chmod(0o600)
    (ssh / "config").write_text(f"Host node1\n  HostName {node.address}\n  Port {node.port}\n  IdentityFile {key}\n")
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # with the wheels that are there already
    return {"HOME": str(ssh.parent), "XDG_CACHE_HOME": cache}


@pytest.mark.soak
def test_first_fleet(place: Path, node: SshHost, home: Mapping[str, str], database_server: DatabaseServer) -> None:
    describe, *others = blocks("first-fleet.md")
    described = {"mongodb://db.example:27017": database_server.uri, "explore": NAME, "chem": node.user}
    for shown, here in described.items():
        assert describe.count(shown) == 1
        describe = describe.replace(shown, here)
    at = next(number for number, block in enumerate(others) if "queue status" in block)
    try:
        done = run("\n".join([describe, MODEST, *others[:at], ALL_DONE, *others[at:]]), place, **home)
    finally:
        with database_server.client() as client:
            client.drop_database(NAME)
    assert "Nothing to do" in done.stderr  # the second deploy
    assert (place / "optimized.xyz").read_text().startswith("3\n")
    assert re.search(r"^\S+ \S+ .* deploy .*done", done.stdout, re.MULTILINE)  # of history
    left = [path.name for path in (node.home / ".puffin-fleet").rglob("*") if path.name in {"releases", "supervisor"}]
    assert left == []
