"""The network of a laboratory, as arguments of ``ip``: what is connected to what, and which addresses are free.

Each laboratory has a switch, a bridge in a network namespace of its own. The controller (the namespace of the
process that made the laboratory) and each host are joined to it by a virtual cable; nothing leads further.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass

BRIDGE = "br0"
UPLINK = "uplink"
LARGEST_HOST = 250


@dataclass(frozen=True)
class Subnet:
    """One of the 254 networks that laboratories choose from."""

    number: int

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"10.213.{self.number}.0/24")

    @property
    def controller(self) -> str:
        """The address that the controller has in it, where hosts reach a test's database."""
        return f"10.213.{self.number}.1"

    @property
    def interface(self) -> str:
        """The controller's end of its cable; that a name is given once makes the subnet this laboratory's alone."""
        return f"puffin-lab{self.number}"

    def host(self, index: int) -> str:
        """The address of a host, counted from 1."""
        return f"10.213.{self.number}.{index + 1}"

    def hardware(self, index: int) -> str:
        """The hardware address of a host: the same after each start, or others would look for the one before."""
        return f"02:d5:00:00:{self.number:02x}:{index + 1:02x}"


def free_subnets(routes: str) -> list[Subnet]:
    """The subnets that no route of this machine leads to, from the text of ``ip -json -4 route show table all``."""
    taken = [ipaddress.IPv4Network(route["dst"]) for route in json.loads(routes or "[]") if route["dst"] != "default"]
    subnets = [Subnet(number) for number in range(1, 255)]
    return [subnet for subnet in subnets if not any(subnet.network.overlaps(network) for network in taken)]


def switch() -> list[str]:
    """Commands in the laboratory's namespace, before anything is connected."""
    return [f"link add {BRIDGE} type bridge", f"link set {BRIDGE} up", "link set lo up"]


def uplink(subnet: Subnet, switch_pid: int) -> list[str]:
    """Commands in the controller's namespace; the first fails where another laboratory was quicker."""
    return [
        f"link add {subnet.interface} type veth peer name {UPLINK} netns {switch_pid}",
        f"addr add {subnet.controller}/24 dev {subnet.interface}",
        f"link set {subnet.interface} up",
    ]


def connect_uplink() -> list[str]:
    """Commands in the laboratory's namespace."""
    return [f"link set {UPLINK} master {BRIDGE} up"]


@dataclass(frozen=True)
class Cable:
    """The cable of one host at the switch.

    With a delay, a relay stands between the host's port and a second cable, wire to line:
    ``host - port - relay - wire - line - bridge``.
    """

    index: int

    @property
    def port(self) -> str:
        return f"port{self.index}"

    @property
    def wire(self) -> str:
        return f"wire{self.index}"

    @property
    def line(self) -> str:
        return f"line{self.index}"

    def plug(self, cut: bool, delayed: bool) -> list[str]:
        """Commands in the laboratory's namespace. A cut is silent: both ends still see a carrier."""
        commands = [f"link set {self.port} nomaster up"]
        if delayed:
            commands += [f"link add {self.wire} type veth peer name {self.line}"]
            commands += [f"link set {self.wire} up", f"link set {self.line} up"]
        if not cut:
            commands += [f"link set {self.line if delayed else self.port} master {BRIDGE}"]
        return commands

    def unplug(self) -> list[str]:
        """Commands in the laboratory's namespace that take the relay's cable away."""
        return [f"link del {self.wire}"]
