"""The configuration: what is read, what is refused and how, and the dictionary-like face that existing code uses."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from puffin import overlay
from puffin import settings as schema
from puffin.config import Configuration, dict_generator
from puffin.errors import ConfigurationError, ExitCode
from puffin.settings import Settings

# The seed's sections and keys: whatever else there is, these must be.
DAEMON = """
    mode job_dir software_dir error_dir archive_dir uuid pid pid_dir log stop remove_stop_file cycle_time_in_s
    timeout_in_h idle_timeout_in_h touch_time_in_s job_reset_time_in_s repeated_failure_stop max_number_of_jobs
    enforce_memory_limit
"""
SEED = {
    "daemon": tuple(DAEMON.split()),
    "database": ("ip", "port", "name"),
    "resources": ("cores", "memory", "disk", "ssh_keys"),
}
SEED_DEFAULTS = {
    ("daemon", "cycle_time_in_s"): 10.0,
    ("daemon", "timeout_in_h"): 48.0,
    ("daemon", "touch_time_in_s"): 1500.0,
    ("daemon", "job_reset_time_in_s"): 7200.0,
    ("daemon", "idle_timeout_in_h"): -1.0,
    ("daemon", "max_number_of_jobs"): -1,
    ("daemon", "repeated_failure_stop"): 100,
    ("daemon", "enforce_memory_limit"): True,
    ("daemon", "remove_stop_file"): True,
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PUFFIN_")]:
        monkeypatch.delenv(name)


def loaded(tmp_path: Path, text: str) -> Configuration:
    path = tmp_path / "puffin.yaml"
    path.write_text(text)
    config = Configuration()
    config.load(str(path))
    return config


def complaints(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, text)
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    return str(caught.value).replace(str(tmp_path) + "/", "")


# Reading -----------------------------------------------------------------------------------------------


def test_every_key_of_the_seed_is_there() -> None:
    config = Configuration()
    for section, keys in SEED.items():
        assert set(keys) <= set(config[section])
    for (section, key), value in SEED_DEFAULTS.items():
        assert config[section][key] == value


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("", ("resources", "cores"), 1),
        ("resources:", ("resources", "cores"), 1),
        ("resources: {memory: 8}", ("resources", "memory"), 8.0),
        ("resources: {cores: 4.0}", ("resources", "cores"), 4),
        ("resources: {ssh_keys: [a, b]}", ("resources", "ssh_keys"), ["a", "b"]),
        ("resources: {ssh_keys: 'a, b'}", ("resources", "ssh_keys"), ["a", "b"]),
        ("resources: {cpus: [3, 0, 3]}", ("resources", "cpus"), [0, 3]),
        ("resources: {cpus: '0-2, 5'}", ("resources", "cpus"), [0, 1, 2, 5]),
        ("resources: {cpus: ['0-2', 5]}", ("resources", "cpus"), [0, 1, 2, 5]),
        ("resources: {cpus: 1}", ("resources", "cpus"), [1]),
        ("resources: {cpus: ''}", ("resources", "cpus"), []),
        ("resources: {gpus: [0, GPU-1a]}", ("resources", "gpus"), ["0", "GPU-1a"]),
        ("resources: {gpus: 1}", ("resources", "gpus"), ["1"]),
        ("resources: {gpus: '0,1'}", ("resources", "gpus"), ["0", "1"]),
        ("daemon: {remove_stop_file: no}", ("daemon", "remove_stop_file"), False),
        ("daemon: {log:}", ("daemon", "log"), ""),
        ("database: {name: 'a, b'}", ("database", "name"), "a, b"),
    ],
)
def test_partial_files_and_forgiving_types(tmp_path: Path, text: str, path: tuple[str, str], value: Any) -> None:
    config = loaded(tmp_path, text)
    found = config[path[0]][path[1]]
    assert (found, type(found)) == (value, type(value))


def test_an_unquoted_version_is_text(tmp_path: Path) -> None:
    assert loaded(tmp_path, "programs: {orca: {version: 4.1}}")["programs"]["orca"]["version"] == "4.1"


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUFFIN_DAEMON_MODE", "debug")
    monkeypatch.setenv("PUFFIN_RESOURCES_CORES", "7")
    monkeypatch.setenv("PUFFIN_PROGRAMS_ORCA_ROOT", "/opt/orca")
    monkeypatch.setenv("PUFFIN_DAEMON_REMOVE_STOP_FILE", "false")
    config = loaded(tmp_path, "{daemon: {mode: release, cycle_time_in_s: 3}, resources: {cores: 2, memory: 4}}")
    assert config["daemon"]["mode"] == "debug"
    assert config["daemon"]["remove_stop_file"] is False
    assert config["daemon"]["cycle_time_in_s"] == 3.0
    assert config["resources"]["cores"] == 7
    assert config["resources"]["memory"] == 4.0
    assert config["programs"]["orca"]["root"] == "/opt/orca"


def test_every_key_can_be_set_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: dict[type, str] = {bool: "false", int: "3", float: "2.5", str: "text", list: "a,b"}
    special = {"mode": "debug", "touch_time_in_s": "1", "name": "db", "username": "me", "password_file": "file"}
    special |= {"ssh_tunnel": "me@gateway", "cpus": "0,3"}
    config = Configuration()
    for section in ("daemon", "database", "resources", "fleet"):
        for key, value in config[section].items():
            monkeypatch.setenv(f"PUFFIN_{section}_{key}".upper(), special.get(key, samples[type(value)]))
    config.load()
    for section in ("daemon", "database", "resources", "fleet"):
        for key, value in config[section].items():
            expected = special.get(key, samples[type(value)])
            shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            assert shown.lower() in {expected, f"{expected}.0"}, f"{section}.{key}"


def test_a_name_and_a_pid_file_are_made_up(tmp_path: Path) -> None:
    first, second = loaded(tmp_path, "daemon: {pid_dir: /run/p}"), loaded(tmp_path, "daemon: {uuid: uuid4}")
    assert first["daemon"]["uuid"].startswith("puffin-")
    assert first["daemon"]["pid"] == f"/run/p/{first['daemon']['uuid']}.pid"
    assert first["daemon"]["uuid"] != second["daemon"]["uuid"]
    named = loaded(tmp_path, "daemon: {uuid: mine, pid: /run/mine}")
    assert (named["daemon"]["uuid"], named["daemon"]["pid"]) == ("mine", "/run/mine")


# Refusing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deamon: {}", "puffin.yaml: deamon: unknown section, did you mean 'daemon'?"),
        ("daemon: {cycle_time: 1}", "puffin.yaml: daemon.cycle_time: unknown key, did you mean 'cycle_time_in_s'?"),
        ("programs: {ocra: {}}", "puffin.yaml: programs.ocra: unknown program, did you mean 'orca'?"),
        ("programs: {orca: {rot: x}}", "puffin.yaml: programs.orca.rot: unknown key, did you mean 'root'?"),
        ("resources: {cores: many}", "resources.cores: must be a whole number, not 'many'"),
        ("resources: {cores: 1.5}", "resources.cores: must be a whole number, not 1.5"),
        ("resources: {cores: true}", "resources.cores: must be a whole number, not True"),
        ("daemon: {timeout_in_h: .nan}", "daemon.timeout_in_h: must be a number, not nan"),
        ("daemon: {lease_in_s: inf}", "daemon.lease_in_s: must be a number, not 'inf'"),
        ("resources: {memory: -1}", "resources.memory: must be greater than 0, not -1"),
        ("resources: {ssh_keys: [1]}", "resources.ssh_keys: must be a list of texts"),
        ("resources: {cpus: [a]}", "resources.cpus: must be a list of numbers, not ['a']"),
        ("resources: {cpus: [-1]}", "resources.cpus: must be a list of numbers, not [-1]"),
        ("resources: {cpus: 5-3}", "resources.cpus: must be a list of numbers, not '5-3'"),
        ("resources: {cpus: [true]}", "resources.cpus: must be a list of numbers, not [True]"),
        ("resources: {gpus: [1.5]}", "resources.gpus: must be a list of texts"),
        ("resources: {gpus: ['0 1']}", "resources.gpus: must be numbers or UUIDs without spaces and commas"),
        ("daemon: {mode: fast}", "daemon.mode: must be one of release, debug, not 'fast'"),
        ("daemon: {remove_stop_file: 2}", "daemon.remove_stop_file: must be true or false, not 2"),
        ("daemon: {job_dir: [a]}", "daemon.job_dir: must be text"),
        ("daemon: [1]", "puffin.yaml: daemon: must be a section with keys, not list"),
        ("database: {port: 70000}", "database.port: must be between 1 and 65535, not 70000"),
        ("database: {name: ' , '}", "database.name: must name at least one database"),
        ("database: {username: me}", "database.username: needs database.password_file"),
        ("daemon: {touch_time_in_s: 9000}", "daemon.touch_time_in_s: must be smaller than daemon.job_reset_time_in_s"),
        ("- a", "puffin.yaml: must be a mapping"),
        ("a: [", "puffin.yaml:1: not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert message in complaints(tmp_path, text)


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUFFIN_DATABASE_PORT", "none")
    said = complaints(tmp_path, "{daemon: {stpo: x}, resources: {cores: 0, disk: big}}")
    assert [line.split(": ")[1] for line in said.splitlines()] == [
        "daemon.stpo",
        "resources.cores",
        "resources.disk",
        "database.port",
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration .*missing.yaml"):
        Configuration().load(str(tmp_path / "missing.yaml"))


# The face of a dictionary ------------------------------------------------------------------------------


def test_existing_code_indexes_and_assigns() -> None:
    config = Configuration()
    config["daemon"]["mode"] = "debug"
    config["programs"]["orca"]["available"] = True
    config["programs"]["xtb"] = {"available": True, "version": "6"}
    assert config.daemon()["mode"] == config.settings.daemon.mode == "debug"
    assert config.programs()["orca"]["available"] is True
    assert {"orca", "xtb"} <= set(config.settings.available_programs)
    assert config.daemon() is config["daemon"]
    assert config.database() is config["database"]
    assert config.resources() is config["resources"]
    assert dict(config["database"])["ip"] == "127.0.0.1"
    assert config["daemon"].get("nonsense", 5) == 5
    assert "nonsense" not in config["daemon"]
    config["resources"].update(cores=3)
    assert config["resources"]["cores"] == 3


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("daemon", "mdoe", "debug", "daemon.mdoe: unknown key, did you mean 'mode'?"),
        ("resources", "cores", 0, "resources.cores: must be at least 1, not 0"),
        ("programs", "ocra", {}, "programs.ocra: unknown program, did you mean 'orca'?"),
    ],
)
def test_assignments_are_validated(section: str, key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Configuration()[section][key] = value
    assert message in str(caught.value)


def test_settings_cannot_be_removed() -> None:
    config = Configuration()
    with pytest.raises(ConfigurationError):
        del config["daemon"]["mode"]
    with pytest.raises(ConfigurationError):
        del config["programs"]["orca"]
    with pytest.raises(KeyError):
        config["nonsense"]


def test_what_is_dumped_loads_to_the_same(tmp_path: Path) -> None:
    config = Configuration()
    config["daemon"]["uuid"] = "mine"
    config["daemon"]["pid"] = "/run/mine.pid"
    config["resources"]["ssh_keys"] = ["a"]
    config["programs"]["orca"]["root"] = "/opt/orca"
    path = tmp_path / "dump.yaml"
    config.dump(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Configuration()
    again.load(str(path))
    assert again.settings == config.settings
    assert list(yaml.safe_load(path.read_text())) == ["daemon", "database", "resources", "programs", "fleet"]


def test_a_password_in_a_connection_string_is_not_shown() -> None:
    config = Configuration()
    config["database"]["uri"] = "mongodb://me:secret@host"
    assert "secret" not in repr(config["database"])


def test_the_chains_of_keys_of_a_nested_dictionary() -> None:
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": []}
    assert list(dict_generator(nested)) == [["a", "b"], ["a", "c", "d"], ["e"]]
    assert list(dict_generator({"x": 1}, ["pre"])) == [["pre", "x"]]


def test_overrides_are_checked_without_a_file() -> None:
    assert overlay.check_overrides({"daemon": {"cycle_time_in_s": 5}}) == []
    assert [path for path, _ in overlay.check_overrides({"daemon": {"x": 1}, "y": {}})] == ["daemon.x", "y"]


def test_every_setting_has_a_meaning() -> None:
    for kind in schema.SECTIONS.values():
        for key, type_, _, meaning in schema.options(kind):
            assert len(meaning) > 5, key
            assert type_ in {"str", "int", "float", "bool", "tuple[str, ...]", "tuple[int, ...]", "Devices"}


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().daemon.mode = "debug"
