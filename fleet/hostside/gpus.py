"""The GPUs of a host, as the ids by which CUDA and ROCm choose among them.

NVIDIA's count from 0 in the order of their PCI addresses, which is what nvidia-smi shows and, with
CUDA_DEVICE_ORDER=PCI_BUS_ID, what CUDA takes; one that is cut into MIG devices is replaced by these, which
have no numbers, only UUIDs. AMD's count from 0 in the order of the kernel's topology, as ROCm does.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from fleet.hostside.common import Json, read_text

_PATIENCE_S = 10.0
"""Without a driver that stays loaded, nvidia-smi initialises each GPU first, a second or more each."""

_GPU = re.compile(r"GPU (\d+): (.*?)(?: \(UUID: (\S+)\))?\s*\Z")
_PART = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (\S+)\)")


def gpus(system: Path = Path("/"), patience: float = _PATIENCE_S) -> list[Json]:
    """The GPUs that this user may use, as far as the drivers tell.

    Parameters
    ----------
    system
        The root of the system that is looked at.
    patience
        For how many seconds nvidia-smi is waited for.

    Returns
    -------
    list[Json]
        For each id and name.
    """
    listed = parse_nvidia_smi(_nvidia_smi(patience)) if shutil.which("nvidia-smi") else []
    return listed or nvidia_in_proc(system) or amd(system)


def _nvidia_smi(patience: float) -> str:
    """What `nvidia-smi -L` prints; nothing where it fails or hangs."""
    try:
        process = subprocess.Popen(
            ["nvidia-smi", "-L"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
    except OSError:
        return ""
    try:
        output, _ = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)  # no longer: one that hangs in a broken driver cannot be killed
        return ""
    return output if process.returncode == 0 else ""


def parse_nvidia_smi(text: str) -> list[Json]:
    """Read the output of `nvidia-smi -L`.

    Parameters
    ----------
    text
        Its output.

    Returns
    -------
    list[Json]
        For each GPU, or part of one, id and name.
    """
    found: list[Json] = []
    whole: Json | None = None
    for line in text.splitlines():
        if gpu := _GPU.match(line):
            whole = {"id": gpu[1], "name": gpu[2]}
            found.append(whole)
        elif part := _PART.match(line):
            if whole is not None and whole in found:
                found.remove(whole)
            found.append({"id": part[2], "name": f"{whole['name'] if whole else 'GPU'} {part[1]}"})
    return found


def nvidia_in_proc(system: Path = Path("/")) -> list[Json]:
    """NVIDIA's as the driver tells without nvidia-smi; their directories are named by PCI address.

    Parameters
    ----------
    system
        The root of the system that is looked at.

    Returns
    -------
    list[Json]
        As `gpus`.
    """
    texts = [read_text(path) for path in sorted((system / "proc/driver/nvidia/gpus").glob("*/information"))]
    models = [re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE) for text in texts]
    return [{"id": str(index), "name": model[1] if model else "NVIDIA GPU"} for index, model in enumerate(models)]


def amd(system: Path = Path("/")) -> list[Json]:
    """AMD's, where the user may open the device through which all of them are reached.

    Parameters
    ----------
    system
        The root of the system that is looked at.

    Returns
    -------
    list[Json]
        As `gpus`.
    """
    if not os.access(system / "dev/kfd", os.R_OK | os.W_OK):
        return []
    nodes = (system / "sys/class/kfd/kfd/topology/nodes").glob("[0-9]*")
    ours = [node for node in sorted(nodes, key=lambda node: int(node.name)) if _computes(node)]
    return [{"id": str(index), "name": _amd_name(node)} for index, node in enumerate(ours)]


def _computes(node: Path) -> bool:
    """Processors have a node too, one without such units; the kernel hides those of others' containers as empty."""
    found = re.search(r"^simd_count (\d+)$", read_text(node / "properties"), re.MULTILINE)
    return found is not None and int(found[1]) > 0


def _amd_name(node: Path) -> str:
    return f"AMD {read_text(node / 'name').strip() or 'GPU'}"
