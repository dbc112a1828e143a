"""What all tests share: the laboratory's fixtures, markers by directory, one profile for hypothesis."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.lab.fixtures_ssh",
    "tests.lab.fixtures_database",
    "tests.lab.fixtures_worker",
    "tests.lab.fixtures_lab",
    "tests.acceptance.here",
]

# A shell has what it starts in the background ignore Ctrl-C; so would all that the tests start, and then interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_BY_DIRECTORY = {
    "integration": "uses real servers, programs or the package index",
    "acceptance": "runs the installed commands as a user would",
}

_LONG_FILES = (
    "test_queue_command.py",
    "test_worker_cut_off.py",
    "test_operating.py",
    "test_ansible_hosts.py",
    "test_lab_deploy.py",
    "test_bad_input.py",
    "test_worker_killed.py",
    "test_check_command.py",
    "test_lab_boot.py",
    "test_worker.py",
    "test_ansible.py",
    "test_bootstrap_command.py",
    "test_watching.py",
    "test_tunnel.py",
    "test_whole_path.py",
    "test_demo.py",
    "test_puffin_command.py",
    "test_documented_commands.py",
    "test_by_hand.py",
    "test_rollout.py",
    "test_lock.py",
    "test_bootstrap_real.py",
    "test_notify.py",
    "test_unseen.py",
    "test_random_faults.py",
)

# Derandomised: a failure in CI is the same failure here. No deadline: the machine may be busy.
settings.register_profile(
    "project",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also the tests that take long and go deeper into the same")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: takes long; run by 'make soak' only")
    for name, meaning in _BY_DIRECTORY.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    long = [item for item in items if item.get_closest_marker("soak")]
    if long and not config.getoption("--soak"):
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    # What takes long begins first, so that nobody waits for it at the end.
    order = (*_LONG_FILES, "acceptance", "integration")
    items.sort(key=lambda item: next((at for at, name in enumerate(order) if name in item.path.parts), len(order)))
    for item in items:
        directory = item.path.relative_to(tests).parts[0]
        if directory in _BY_DIRECTORY:
            item.add_marker(directory)
