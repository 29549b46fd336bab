"""Machines that a network can be cut to: network namespaces on one bridge, which this machine is on, too.

A cut is silent, as when a cable is drawn: nobody is told, and packets are lost.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from tests.clusters.conftest import run

# For tests of networks, never routed: RFC 2544.
NET = "198.18.77"


@dataclass(frozen=True)
class Network:
    """Some machines, `n1` and so on.

    Parameters
    ----------
    name : str
        Of the bridge, and of the interface each machine has.
    count : int
    """

    name: str
    count: int

    def space(self, machine: str) -> str:
        """The namespace of a machine."""
        return f"{self.name}-{machine}"

    def cut(self, machine: str) -> None:
        """Draw the cable."""
        run("ip", "link", "set", self._port(machine), "nomaster")

    def heal(self, machine: str) -> None:
        """Put it in again."""
        run("ip", "link", "set", self._port(machine), "master", self.name)

    def _port(self, machine: str) -> str:
        return f"{self.name}{machine}"

    def _add(self, machine: str, address: str) -> None:
        space, port = self.space(machine), self._port(machine)
        run("ip", "netns", "add", space)
        run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "link", "add", port, "type", "veth", "peer", "name", self.name, "netns", space)
        run("ip", "link", "set", port, "master", self.name, "up")
        run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", self.name)
        run("ip", "-n", space, "link", "set", self.name, "up")

    def up(self) -> None:
        """Make it."""
        run("ip", "link", "add", self.name, "type", "bridge", "stp_state", "0", "forward_delay", "0")
        run("ip", "addr", "add", f"{NET}.1/24", "dev", self.name)
        run("ip", "link", "set", self.name, "up")
        for one in range(1, self.count + 1):
            self._add(f"n{one}", f"{NET}.{10 + one}")

    def down(self) -> None:
        """Remove what there is of it."""
        for one in range(1, self.count + 1):
            subprocess.run(["ip", "netns", "del", self.space(f"n{one}")], capture_output=True, check=False)
            subprocess.run(["ip", "link", "del", self._port(f"n{one}")], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.name], capture_output=True, check=False)


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """So many machines, up to the end of the block."""
    # Names of interfaces have 15 characters at most.
    made = Network(f"mce{os.getpid() % 100000}", count)
    made.down()
    try:
        made.up()
        yield made
    finally:
        made.down()
