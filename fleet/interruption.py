"""Ctrl-C and its like at moments at which nothing may be interrupted."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Heed Ctrl-C, and being told to end, only afterwards. Only the main thread is ever disturbed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_ending = sys.exc_info()[0] is not None
    heard: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: heard.append(number)) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard and not is_ending:  # who is ending already knows why
        signal.raise_signal(heard[0])
