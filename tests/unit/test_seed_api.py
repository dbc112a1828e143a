"""The Python interface of SCINE Puffin, as its documentation lists it, is that of this package."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from puffin.config import Configuration
from puffin.daemon import shutdown

_NOTHING = inspect.Parameter.empty

# Module, name, parameters with their defaults; a method's own object is left out.
INTERFACE: list[tuple[str, str, dict[str, Any]]] = [
    ("bootstrap", "bootstrap", {"config": _NOTHING}),
    ("config", "Configuration", {}),
    ("config", "Configuration.daemon", {}),
    ("config", "Configuration.database", {}),
    ("config", "Configuration.programs", {}),
    ("config", "Configuration.resources", {}),
    ("config", "Configuration.dump", {"path": _NOTHING}),
    ("config", "Configuration.load", {"path": None}),
    ("config", "dict_generator", {"indict": _NOTHING, "pre": None}),
    ("daemon", "check_environment", {"config": _NOTHING}),
    ("daemon", "shutdown", {"_signum": _NOTHING, "_frame": _NOTHING}),
    ("daemon", "start_daemon", {"config": _NOTHING, "detach": True}),
    ("daemon", "stop_daemon", {"config": _NOTHING}),
    ("jobloop", "check_setup", {"config": _NOTHING}),
    ("jobloop", "kill_daemon", {"config": _NOTHING}),
    ("jobloop", "loop", {"config": _NOTHING, "available_jobs": _NOTHING}),
    ("jobloop", "slow_connect", {"manager": _NOTHING, "config": _NOTHING}),
    ("programs.program", "Program", {"settings": _NOTHING}),
    ("programs.program", "Program.available_models", {}),
    ("programs.program", "Program.check_install", {}),
    ("programs.program", "Program.install", {"repo_dir": _NOTHING, "install_dir": _NOTHING, "ncores": _NOTHING}),
    ("programs.program", "Program.pip_module_source_install", {"repo_dir": _NOTHING, "install_dir": _NOTHING}),
    (
        "programs.program",
        "Program.scine_module_install",
        {"repo_dir": _NOTHING, "install_dir": _NOTHING, "ncores": _NOTHING, "add_lib": False, "add_bin": False},
    ),
    (
        "programs.program",
        "Program.setup_environment",
        {"config": _NOTHING, "env_paths": _NOTHING, "env_vars": _NOTHING},
    ),
]

# Called on the class.
STATIC: list[tuple[str, dict[str, Any]]] = [
    ("initialize", {}),
    ("pip_package_install", {"package": _NOTHING, "install_dir": _NOTHING}),
]

SETTINGS = {
    "daemon": "mode job_dir software_dir error_dir archive_dir uuid pid pid_dir log stop remove_stop_file "
    "cycle_time_in_s timeout_in_h idle_timeout_in_h touch_time_in_s job_reset_time_in_s repeated_failure_stop "
    "max_number_of_jobs enforce_memory_limit",
    "database": "ip port name",
    "resources": "cores memory disk ssh_keys",
}
OF_A_PROGRAM = "available source root version"


def find(module: str, name: str) -> Callable[..., Any]:
    found: Any = importlib.import_module(f"puffin.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    return found


def wrong_with(function: Callable[..., Any], wanted: dict[str, Any], is_method: bool) -> str:
    """What keeps a call that is right for SCINE Puffin from being right here; empty if nothing."""
    parameters = list(inspect.signature(function).parameters.values())[is_method:]
    same, more = parameters[: len(wanted)], parameters[len(wanted) :]
    if {each.name: each.default for each in same} != wanted or [each.name for each in same] != list(wanted):
        return f"takes {', '.join(map(str, parameters)) or 'nothing'}"
    if any(each.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD for each in same):
        return "does not take them both by name and by place"
    asked = [each.name for each in more if each.default is _NOTHING]
    return f"also asks for {', '.join(asked)}" if asked else ""


@pytest.mark.parametrize(("module", "name", "parameters"), INTERFACE)
def test_it_is_called_as_there(module: str, name: str, parameters: dict[str, Any]) -> None:
    assert wrong_with(find(module, name), parameters, is_method="." in name) == ""


@pytest.mark.parametrize(("name", "parameters"), STATIC)
def test_it_is_called_on_the_class_as_there(name: str, parameters: dict[str, Any]) -> None:
    assert wrong_with(find("programs.program", f"Program.{name}"), parameters, is_method=False) == ""


def test_a_difference_would_be_seen() -> None:
    def ours(config: object, *, detach: bool = True) -> None: ...

    assert wrong_with(ours, {"config": _NOTHING}, is_method=False) == ""
    assert wrong_with(ours, {"conf": _NOTHING}, is_method=False).startswith("takes config: ")
    assert wrong_with(ours, {"config": _NOTHING, "detach": False}, is_method=False).startswith("takes config: ")
    assert wrong_with(ours, {"config": _NOTHING, "detach": True}, is_method=False).startswith("does not take them")
    assert wrong_with(ours, {}, is_method=False) == "also asks for config"


def test_its_settings_are_there() -> None:
    config = Configuration()
    for section, keys in SETTINGS.items():
        assert set(keys.split()) <= set(config[section])
        assert dict(getattr(config, section)()) == dict(config[section])
    assert config.programs()
    for settings in config.programs().values():
        assert set(OF_A_PROGRAM.split()) <= set(settings)


def test_shutdown_ends_the_process_without_an_error() -> None:
    with pytest.raises(SystemExit) as ended:
        shutdown(15, None)
    assert not ended.value.code
