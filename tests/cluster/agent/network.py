"""A network of its own for each pod: an address on the lab's bridge, and a loopback that nobody shares."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

# Made in the namespace, configured there, plugged into the bridge. A device's name has 15 characters at most.
_PLUG = r"""
set -eu
pid=$1 device=$2 bridge=$3 address=$4
# The kernel takes its time to remove the devices of a lab that has ended, and this one has the same names.
ip link delete "$device" 2>/dev/null || true
ip link add "$device" type veth peer name eth0 netns "$pid"
ip link set "$device" master "$bridge" up
nsenter --target "$pid" --net sh -c "
    ip link set lo up
    ip address add $address/16 dev eth0
    ip link set eth0 up
"
"""


class NetworkFailed(Exception):
    """The pod's network could not be made."""


@dataclass(frozen=True)
class Bridge:
    """The lab's bridge, as pods see it. address: the machine's own, 10.N.0.1."""

    name: str
    address: str


class Network:
    """One pod's. Lives as long as the process that holds it, and so at most as long as the agent."""

    def __init__(self, bridge: Bridge, address: str) -> None:
        self.address = address
        self._bridge = bridge
        self._holder: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """A process inside."""
        if self._holder is None:
            raise NetworkFailed(f"network of {self.address}: not open")
        return self._holder.pid

    def open(self) -> None:
        """Make it. The thread that calls this must outlive it: the kernel ties the two together."""
        hold = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]
        self._holder = subprocess.Popen(hold, stdin=subprocess.DEVNULL)
        try:
            self._plug(self._bridge)
        except BaseException:
            self.close()
            raise

    def _plug(self, bridge: Bridge) -> None:
        device = "cb" + "".join(f"{int(part):02x}" for part in self.address.split("."))
        command = ["sh", "-c", _PLUG, "plug", str(self.pid), device, bridge.name, self.address]
        self._wait_for_the_namespace()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NetworkFailed(f"network of {self.address}: {done.stderr.strip()}")

    def _wait_for_the_namespace(self) -> None:
        """Until the holder has left this machine's network: it does so a moment after its start."""
        ours, pause = _namespace("self"), threading.Event()
        for _ in range(500):
            if _namespace(str(self.pid)) != ours:
                return
            pause.wait(0.01)
        raise NetworkFailed(f"network of {self.address}: no namespace after 5 s")

    def close(self) -> None:
        """Unplug: the kernel removes the devices with the namespace's last process."""
        if self._holder:
            self._holder.kill()
            self._holder.wait()


def _namespace(pid: str) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


class Addresses:
    """Hands out a bridge's addresses, each to one living pod."""

    def __init__(self, bridge: Bridge) -> None:
        self._prefix = bridge.address.rsplit(".", 2)[0]
        self._last = 250

    def new(self, taken: Collection[str]) -> str:
        """One that is not taken; a freed one is used again as late as possible."""
        while True:
            self._last = self._last + 1 if self._last < 62_500 else 250
            address = f"{self._prefix}.{self._last // 250}.{self._last % 250 + 1}"
            if address not in taken:
                return address
