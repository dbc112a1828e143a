"""The clock of leases, which worker, keeper and judge count by."""

from __future__ import annotations

import time


def boot_time() -> float:
    """Seconds on the clock of leases: it never jumps, is the same in all processes, and counts suspended time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
