"""A host with a package index of its own: only what that index cannot have is sent there."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from fleet.release.bundle import build_bundle, build_toolbox, default_cache
from fleet.release.wheels import Platform, Wheel
from tests.acceptance.commands import puffin_fleet
from tests.acceptance.test_whole_path import hosts_yaml
from tests.lab.fixtures_database import Database
from tests.lab.sshd import Lab, SshHost

PYTHON = "/usr/bin/python3"


@dataclass
class Index:
    """A package index, as a directory that is served."""

    root: Path
    port: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://reader:geheim@127.0.0.1:{self.port}/simple"

    def offer(self, wheel: Wheel) -> None:
        place = self.root / "simple" / wheel.name
        place.mkdir(parents=True)
        shutil.copyfile(wheel.path, place / wheel.filename)
        (place / "index.html").write_text(f'<a href="{wheel.filename}#sha256={wheel.sha256}">{wheel.filename}</a>')

    def given(self) -> set[str]:
        return {path.rpartition("/")[2] for path in self.asked if path.endswith(".whl")}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    made = Index(tmp_path / "index")
    made.root.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            made.asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(made.root)))
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def host(ssh_lab: Lab, index: Index) -> Iterator[SshHost]:
    """A host where pip is told of the index, and uv of nothing."""
    made = ssh_lab.host("indexed")
    settings = made.home / ".config" / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[global]\nindex-url = {index.address}\n")
    for path in (made.home / ".config", settings.parent, settings):
        made.own(path)
    yield made
    ssh_lab.remove(made)


def platform() -> Platform:
    words = [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    version = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    return dataclasses.replace(Platform.here(), python=version)


@pytest.mark.soak
def test_only_what_no_index_has_is_sent(host: SshHost, index: Index, database: Database, tmp_path: Path) -> None:
    content = hosts_yaml((host,), database, install="index", extras=[])
    content["defaults"]["workers"]["count"] = 1
    file = tmp_path / "hosts.yaml"
    file.write_text(yaml.safe_dump(content))
    bundle = build_bundle("auto", [], platform(), default_cache())
    theirs = {wheel.name: wheel for wheel in (*bundle.wheels, *build_toolbox(platform(), default_cache()).supervisor)}
    own = theirs.pop("puffin-fleet")
    late = theirs["click"]
    for wheel in theirs.values():
        if wheel is not late:
            index.offer(wheel)

    index.offer(dataclasses.replace(late, filename="click-0.1-py3-none-any.whl"))

    refused = puffin_fleet("deploy", file, "--yes")
    assert refused.code == 1
    assert f"the package index of this host has no click=={late.version}" in refused.err
    assert "set release.install to push" in refused.err
    assert "geheim" not in refused.err

    shutil.rmtree(index.root / "simple" / "click")
    index.offer(late)
    puffin_fleet("deploy", file, "--yes").ok()
    assert {path.name for path in host.home.rglob("wheels/*/*.whl")} == {own.filename}
    assert index.given() == {wheel.filename for wheel in theirs.values()}
    # The same files as by push, so the same release.
    (record,) = puffin_fleet("status", file, "--json").ok().json()
    assert record["release"] == bundle.release_id
    content["release"]["install"] = "push"
    file.write_text(yaml.safe_dump(content))
    assert "Nothing to do" in puffin_fleet("deploy", file, "--yes").ok().err
