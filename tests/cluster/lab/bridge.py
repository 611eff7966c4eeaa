"""The pods' network: a bridge of this machine with a private range, whose first address is the machine's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_TRIES = 16


class Bridge:
    """A network device `cblab<N>` with 10.64+N.0.0/16. What pods get of it: `agent/network.py`."""

    def __init__(self) -> None:
        self.name, self.address = "", ""

    def create(self) -> None:
        """Take the first number that no living lab has."""
        for number in range(_TRIES):
            name = f"cblab{number}"
            if _belongs_to_a_living_lab(name):
                continue
            if Path(f"/sys/class/net/{name}").exists():
                _ip("link", "delete", name)
            try:
                _ip("link", "add", name, "type", "bridge")
            except RuntimeError:
                continue  # another lab was quicker
            # How the next lab knows that this one lives.
            _ip("link", "set", name, "alias", str(os.getpid()))
            self.name, self.address = name, f"10.{64 + number}.0.1"
            _ip("address", "add", f"{self.address}/16", "dev", name)
            _ip("link", "set", name, "up")
            return
        raise RuntimeError(f"{_TRIES} labs run on this machine already: `ip link show type bridge`")

    def remove(self) -> None:
        """The pods' ends of it go with the pods."""
        if self.name:
            _ip("link", "delete", self.name)


def _belongs_to_a_living_lab(name: str) -> bool:
    try:
        owner = Path(f"/sys/class/net/{name}/ifalias").read_text(encoding="ascii").strip()
    except OSError:
        return False
    # Without a name on it, another lab makes it at this moment.
    return not owner or Path(f"/proc/{owner}").exists()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
