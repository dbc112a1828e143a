"""A slow cable: passes every frame between two interfaces, each some time after it came.

``python relay.py INTERFACE INTERFACE SECONDS``, as root, in the namespace of both. (The kernel's own way, netem, is
missing on many virtual machines.)
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections import deque

_EVERY_PROTOCOL = 0x0003
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_OUTGOING = 263, 15, 4
_LARGEST = 70_000
"""Bytes. Between virtual interfaces the kernel hands on segments larger than any frame, with this header in front."""


def tap(interface: str) -> socket.socket:
    """A socket for every frame of an interface, with what the kernel left to do for it (checksum, segmentation)."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    opened.bind((interface, 0))
    return opened


def relay(first: socket.socket, second: socket.socket, delay_s: float) -> None:
    """Pass frames until an interface is gone."""
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()
    with selectors.DefaultSelector() as selector:
        selector.register(first, selectors.EVENT_READ, second)
        selector.register(second, selectors.EVENT_READ, first)
        while True:
            timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            for key, _ in selector.select(timeout):
                frame, address = key.fileobj.recvfrom(_LARGEST)
                if address[2] != _PACKET_OUTGOING:
                    waiting.append((time.monotonic() + delay_s, key.data, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                _, target, frame = waiting.popleft()
                target.send(frame)


def main(first: str, second: str, delay_s: str) -> int:
    with tap(first) as left, tap(second) as right:
        print("ready", flush=True)
        try:
            relay(left, right, float(delay_s))
        except OSError as error:  # the host was switched off, and its interface went with it
            print(f"relay {first} - {second}: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
