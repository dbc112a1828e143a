"""The processors and GPUs of a worker and its jobs, where the settings choose them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from puffin.conversion import processors
from puffin.errors import ConfigurationError
from puffin.settings import ResourceSettings

_ONLINE = Path("/sys/devices/system/cpu/online")
_NVIDIA, _AMD = Path("/dev/nvidiactl"), Path("/dev/kfd")
# These number the devices that ROCR_VISIBLE_DEVICES has left over: any of them would hide the wrong ones.
_AMD_AGAIN = ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")


def occupy(resources: ResourceSettings) -> None:
    """Let this process, and so all that it starts from now on, use only the chosen devices.

    Parameters
    ----------
    resources
        The section with ``cpus`` and ``gpus``; what is empty is left as it is.

    Raises
    ------
    ConfigurationError
        A processor is not there, or not for this process.
    """
    problem = refusal(resources.cpus)
    if problem:
        raise ConfigurationError(f"resources.cpus: {problem}")
    if resources.cpus:
        os.sched_setaffinity(0, resources.cpus)
    environment = environment_with(resources.gpus, os.environ, on_amd=_AMD.exists() and not _NVIDIA.exists())
    for variable in set(os.environ) - set(environment):
        del os.environ[variable]
    os.environ.update(environment)


def refusal(cpus: tuple[int, ...]) -> str:
    """Why this process cannot use processors; empty if it can.

    Parameters
    ----------
    cpus
        Their numbers.
    """
    if not cpus:
        return ""
    there = _online()
    missing = set(cpus) - there
    if missing:
        return f"{in_words(missing)} is not on this machine, which has {in_words(there)}"
    before = os.sched_getaffinity(0)
    try:
        # The kernel quietly leaves out what a batch system or a container has kept from this process.
        os.sched_setaffinity(0, cpus)
        kept_away = set(cpus) - os.sched_getaffinity(0)
    except OSError:
        kept_away = set(cpus)
    finally:
        os.sched_setaffinity(0, before)
    return f"{in_words(kept_away)} is on this machine, but kept from this process" if kept_away else ""


def environment_with(gpus: tuple[str, ...], present: Mapping[str, str], on_amd: bool) -> dict[str, str]:
    """The variables that hide all GPUs but the chosen ones.

    Parameters
    ----------
    gpus
        Numbers, as ``nvidia-smi`` and ``rocm-smi`` show them, or UUIDs; empty: nothing is changed.
    present
        The variables as they are.
    on_amd
        Whether the machine's are AMD's.
    """
    if not gpus:
        return dict(present)
    chosen = ",".join(gpus)
    if on_amd:
        rest = {name: value for name, value in present.items() if name not in _AMD_AGAIN}
        return {**rest, "ROCR_VISIBLE_DEVICES": chosen}
    # Without an order, CUDA counts the fastest first, and its numbers are not those of nvidia-smi.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **present, "CUDA_VISIBLE_DEVICES": chosen}


def has_gpu_driver() -> bool:
    """Whether the kernel offers any GPU for computing."""
    return _NVIDIA.exists() or _AMD.exists()


def in_words(numbers: Iterable[int]) -> str:
    """Numbers of processors in short, such as ``0-3,8``.

    Parameters
    ----------
    numbers
        The numbers.
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _online() -> frozenset[int]:
    try:
        return frozenset(processors(_ONLINE.read_text()))
    except (OSError, ValueError):
        return frozenset(range(os.cpu_count() or 1))
