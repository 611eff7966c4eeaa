"""Redis servers that belong together: a Cluster, and a primary with its replica under Sentinel.

Debian's redis-server, each on loopback in a folder of its own, ended by its process id. One with `--sentinel`
rewrites its configuration by renaming over it, so each gets a scratch file.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis

from tests.support.redis_server import server_program
from tests.support.waiting import wait_until

SLOTS = 16_384
#: A node that has been silent for so long is taken for dead.
SILENCE_MS = 1_000


class Node:
    """One server process; a context manager. `config`: lines of its configuration file."""

    def __init__(self, folder: Path, config: Mapping[str, object], *arguments: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._config = config
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.client: redis.Redis = redis.Redis(port=self.port, decode_responses=True, socket_timeout=5)

    def __enter__(self) -> Node:
        self.folder.mkdir(parents=True)
        lines = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": '""',
            "daemonize": "no",
            "logfile": self.folder / "server.log",
            **self._config,
        }
        file = self.folder / "server.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in lines.items()), encoding="utf-8")
        self._process = subprocess.Popen([server_program("redis"), file, *self._arguments], cwd=self.folder)
        wait_until(self._answers, 20, f"the server in {self.folder}")
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.kill()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def info(self, section: str) -> dict[str, Any]:
        found: Any = self.client.info(section)
        return dict(found)


class Cluster:
    """Three primaries with a replica each. `url` names one of them; the others are found from there."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        config = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": SILENCE_MS,
            "cluster-replica-validity-factor": 0,
            "appendonly": "yes",
        }
        self.nodes = [
            Node(folder / f"node-{number}", {**config, "cluster-port": free_port()}) for number in range(6)
        ]
        self.primaries, self.replicas = self.nodes[:3], self.nodes[3:]

    def __enter__(self) -> Cluster:
        try:
            self._form()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port},127.0.0.1:{self.nodes[1].port}"

    def _form(self) -> None:
        for node in self.nodes:
            self._stack.enter_context(node)
        first = self.nodes[0]
        for number, primary in enumerate(self.primaries):
            begin, end = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            primary.client.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end)
            primary.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            bus = first.client.config_get("cluster-port")["cluster-port"]
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        wait_until(
            lambda: all(self._known(node) == 6 for node in self.nodes), 20, "nodes that know each other"
        )
        for primary, replica in zip(self.primaries, self.replicas, strict=True):
            replica.client.execute_command(
                "CLUSTER", "REPLICATE", primary.client.execute_command("CLUSTER", "MYID")
            )
        wait_until(lambda: all(self._whole(node) for node in self.nodes), 20, "a whole cluster")
        wait_until(lambda: all(synchronised(node) for node in self.primaries), 20, "replicas in step")

    def _known(self, node: Node) -> int:
        return int(self._info(node)["cluster_known_nodes"])

    def _whole(self, node: Node) -> bool:
        found = self._info(node)
        return found["cluster_state"] == "ok" and found["cluster_slots_ok"] == str(SLOTS)

    def _info(self, node: Node) -> dict[str, str]:
        told: Any = node.client.execute_command("CLUSTER", "INFO")
        return dict(told) if isinstance(told, dict) else dict(row.split(":", 1) for row in told.split())

    def primary_of(self, key: str) -> tuple[Node, Node]:
        """The node that serves `key`, and its replica."""
        slot = int(self.nodes[-1].client.execute_command("CLUSTER", "KEYSLOT", key))
        number = next(n for n in range(3) if slot < (n + 1) * SLOTS // 3)
        return self.primaries[number], self.replicas[number]


class Guarded:
    """A primary and its replica, and three sentinels that watch them as `service`."""

    service = "board"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.primary = Node(folder / "primary", {"appendonly": "yes"})
        self.replica = Node(
            folder / "replica", {"appendonly": "yes", "replicaof": f"127.0.0.1 {self.primary.port}"}
        )
        config = {
            "sentinel monitor": f"{self.service} 127.0.0.1 {self.primary.port} 2",
            "sentinel down-after-milliseconds": f"{self.service} {SILENCE_MS}",
            "sentinel failover-timeout": f"{self.service} 5000",
        }
        self.sentinels = [Node(folder / f"sentinel-{number}", config, "--sentinel") for number in range(3)]

    def __enter__(self) -> Guarded:
        try:
            for node in (self.primary, self.replica):
                self._stack.enter_context(node)
            wait_until(lambda: synchronised(self.primary), 20, "a replica in step")
            for node in self.sentinels:
                self._stack.enter_context(node)
            wait_until(lambda: all(map(self._sees_all, self.sentinels)), 30, "sentinels that know each other")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    def _sees_all(self, sentinel: Node) -> bool:
        told: Any = sentinel.client.sentinel_master(self.service)
        return (told["num-other-sentinels"], told["num-slaves"]) == (2, 1)


def synchronised(primary: Node) -> bool:
    """Whether every replica has all that its primary has."""
    told = primary.info("replication")
    replicas = [told[f"slave{number}"] for number in range(int(told["connected_slaves"]))]
    return bool(replicas) and all(
        replica["state"] == "online" and int(replica["offset"]) == int(told["master_repl_offset"])
        for replica in replicas
    )


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
