"""Which processors and GPUs a worker and its jobs may use."""

from __future__ import annotations

import os

import pytest

from puffin import devices
from puffin.conversion import processors

PRESENT = {"PATH": "/bin", "HIP_VISIBLE_DEVICES": "3", "CUDA_VISIBLE_DEVICES": "3"}


@pytest.mark.parametrize(
    ("gpus", "on_amd", "expected"),
    [
        ((), False, PRESENT),
        ((), True, PRESENT),
        (("0", "1"), False, {**PRESENT, "CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        # There HIP would count again among those that are left: number 1 of one device is none.
        (("1",), True, {"PATH": "/bin", "ROCR_VISIBLE_DEVICES": "1"}),
    ],
)
def test_the_variables_that_hide_gpus(gpus: tuple[str, ...], on_amd: bool, expected: dict[str, str]) -> None:
    assert devices.environment_with(gpus, PRESENT, on_amd) == expected


def test_an_order_that_somebody_chose_is_kept() -> None:
    found = devices.environment_with(("0",), {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, on_amd=False)
    assert found["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


@pytest.mark.parametrize("text", ["0", "0-3", "0-1,3,5-7", ""])
def test_numbers_of_processors_in_short(text: str) -> None:
    assert devices.in_words(processors(text)) == text


def test_processors_that_are_not_there_are_refused() -> None:
    allowed = os.sched_getaffinity(0)
    assert devices.refusal(()) == ""
    assert devices.refusal(tuple(allowed)) == ""
    assert devices.refusal((0, 98765)).startswith("98765 is not on this machine, which has 0")
    assert os.sched_getaffinity(0) == allowed
