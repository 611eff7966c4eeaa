"""Redis servers that belong together: a Cluster, and a primary with its replica under Sentinel.

Debian's redis-server, each on loopback in a folder of its own, ended by its process id. One with `--sentinel`
rewrites its configuration by renaming over it, so each gets a scratch file.

A busy machine stops a server for a second or two, and that is no death. So nobody is taken for dead before
a test says that somebody will die (`expect_a_death`). A server that ends while it starts fails the test at
once, and whatever fails a start comes with the last words of every server.
"""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from tests.support.ports import free_port
from tests.support.redis_server import server_program
from tests.support.waiting import wait_until

SLOTS = 16_384
#: A node that has been silent for so long is taken for dead: while no death is expected, and once one is.
PATIENCE_MS = 60_000
SILENCE_MS = 2_000
#: How long each step of a start may take; on a quiet machine one takes a second.
START_SECONDS = 60
#: How many lines of its log a server says in a failure.
LAST_WORDS = 15
# A first replica would be kept waiting for others to share its copy with; for these there are none.
_REPLICATED = {"appendonly": "yes", "repl-diskless-sync-delay": 0}


class Node:
    """One server process; a context manager. `config`: lines of its configuration file."""

    def __init__(self, folder: Path, config: Mapping[str, object], *arguments: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._config = config
        self._arguments = arguments
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        # Whoever asks again and again needs no client that does so too, with pauses that grow.
        self.client: redis.Redis = redis.Redis(
            port=self.port, decode_responses=True, socket_timeout=10, retry=Retry(NoBackoff(), 0)
        )

    def __enter__(self) -> Node:
        self.folder.mkdir(parents=True)
        lines = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": '""',
            "daemonize": "no",
            **self._config,
        }
        file = self.folder / "server.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in lines.items()), encoding="utf-8")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [server_program("redis"), file, *self._arguments], cwd=self.folder, stdout=log, stderr=log
            )
        process = self._process
        try:
            wait_until(lambda: self._answers(process), START_SECONDS, f"the server in {self.folder}")
        except BaseException as error:
            error.add_note(self.last_words())
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.kill()

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        status = process.poll()
        assert status is None, f"the server in {self.folder} ended with status {status}"
        # The port may be a stranger's; then ours is about to end.
        return holds(lambda: self.info("server")["process_id"] == process.pid)

    def last_words(self) -> str:
        """The end of its log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_WORDS:]
        return "\n".join((f"{self.folder.name}, on port {self.port}:", *lines))

    def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def info(self, section: str) -> dict[str, Any]:
        found: Any = self.client.info(section)
        return dict(found)


class Group(ABC):
    """Nodes that are started together; a context manager."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._all = nodes
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        started: list[Node] = []
        try:
            self._form(lambda node: started.append(self._stack.enter_context(node)))
        except BaseException as error:
            for node in started:
                error.add_note(node.last_words())
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abstractmethod
    def _form(self, start: Callable[[Node], None]) -> None:
        """Start the nodes and wait until they are one."""

    @abstractmethod
    def expect_a_death(self) -> None:
        """From now on a silent node is taken for dead soon, and its replica takes over."""


class Cluster(Group):
    """Three primaries with a replica each. `url` names one of them; the others are found from there."""

    def __init__(self, folder: Path) -> None:
        config = {
            **_REPLICATED,
            "cluster-enabled": "yes",
            "cluster-node-timeout": PATIENCE_MS,
            "cluster-replica-validity-factor": 0,
        }
        self.buses = [free_port() for _ in range(6)]
        self.nodes = [
            Node(folder / f"node-{number}", {**config, "cluster-port": bus})
            for number, bus in enumerate(self.buses)
        ]
        self.primaries, self.replicas = self.nodes[:3], self.nodes[3:]
        super().__init__(self.nodes)

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port},127.0.0.1:{self.nodes[1].port}"

    def expect_a_death(self) -> None:
        for node in self.nodes:
            node.client.config_set("cluster-node-timeout", SILENCE_MS)

    def _form(self, start: Callable[[Node], None]) -> None:
        for node in self.nodes:
            start(node)
        for number, primary in enumerate(self.primaries):
            begin, end = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            primary.client.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end)
            primary.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        self._introduce(self.nodes)
        self._await(self._knows_all, "nodes that know each other")
        for primary, replica in zip(self.primaries, self.replicas, strict=True):
            replica.client.execute_command(
                "CLUSTER", "REPLICATE", primary.client.execute_command("CLUSTER", "MYID")
            )
        self._introduce(self.replicas)
        self._await(self._whole, "a whole cluster")
        wait_until(lambda: all(map(synchronised, self.primaries)), START_SECONDS, "replicas in step")

    def _introduce(self, nodes: Sequence[Node]) -> None:
        """Let them tell all others at once what they are. So patient, they would take seconds for it."""
        for node in nodes:
            for other, bus in zip(self.nodes, self.buses, strict=True):
                if other is not node:
                    node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)

    def _await(self, question: Callable[[Node], bool], description: str) -> None:
        wait_until(
            lambda: holds(lambda: all(map(question, self.nodes))), START_SECONDS, description, poll=0.05
        )

    def _knows_all(self, node: Node) -> bool:
        """Whether it has shaken hands with every other: before, it would not know whom to replicate."""
        known = self._flags(node)
        return len(known) == len(self.nodes) and not any("handshake" in flags for flags in known)

    def _whole(self, node: Node) -> bool:
        """Whether it knows who serves what, and who would take over from whom."""
        found: Any = node.client.execute_command("CLUSTER INFO")
        replicas = sum("slave" in flags for flags in self._flags(node))
        return (found["cluster_state"], found["cluster_slots_ok"], replicas) == ("ok", str(SLOTS), 3)

    def _flags(self, node: Node) -> list[str]:
        """What it says of each node that it knows, itself among them."""
        told: Any = node.client.execute_command("CLUSTER NODES")
        return [one["flags"] for one in told.values()]

    def primary_of(self, key: str) -> tuple[Node, Node]:
        """The node that serves `key`, and its replica."""
        slot = key_slot(key.encode())
        number = next(n for n in range(3) if slot < (n + 1) * SLOTS // 3)
        return self.primaries[number], self.replicas[number]


class Guarded(Group):
    """A primary and its replica, and three sentinels that watch them as `service`."""

    service = "board"

    def __init__(self, folder: Path) -> None:
        self.primary = Node(folder / "primary", _REPLICATED)
        self.replica = Node(
            folder / "replica", {**_REPLICATED, "replicaof": f"127.0.0.1 {self.primary.port}"}
        )
        config = {
            "sentinel monitor": f"{self.service} 127.0.0.1 {self.primary.port} 2",
            "sentinel down-after-milliseconds": f"{self.service} {PATIENCE_MS}",
            "sentinel failover-timeout": f"{self.service} 5000",
        }
        self.sentinels = [Node(folder / f"sentinel-{number}", config, "--sentinel") for number in range(3)]
        super().__init__((self.primary, self.replica, *self.sentinels))

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    def expect_a_death(self) -> None:
        for node in self.sentinels:
            node.client.sentinel_set(self.service, "down-after-milliseconds", SILENCE_MS)

    def _form(self, start: Callable[[Node], None]) -> None:
        for node in (self.primary, self.replica):
            start(node)
        wait_until(lambda: synchronised(self.primary), START_SECONDS, "a replica in step")
        for node in self.sentinels:
            start(node)
            # A sentinel that was stopped for two seconds does not trust its clock, and rests for thirty.
            node.client.execute_command("SENTINEL", "DEBUG", "tilt-trigger", PATIENCE_MS)
        wait_until(
            lambda: all(map(self._sees_all, self.sentinels)), START_SECONDS, "sentinels that know each other"
        )

    def _sees_all(self, sentinel: Node) -> bool:
        def seen() -> bool:
            told: Any = sentinel.client.sentinel_master(self.service)
            return (told["num-other-sentinels"], told["num-slaves"], told["flags"]) == (2, 1, "master")

        return holds(seen)


def synchronised(primary: Node) -> bool:
    """Whether every replica has all that its primary has. One that comes or goes has not."""

    def has_all() -> bool:
        told = primary.info("replication")
        # One whose connection has just broken is counted and not described.
        replicas = [told.get(f"slave{number}") for number in range(int(told["connected_slaves"]))]
        return bool(replicas) and all(
            replica is not None
            and replica["state"] == "online"
            and int(replica["offset"]) == int(told["master_repl_offset"])
            for replica in replicas
        )

    return holds(has_all)


def holds(question: Callable[[], bool]) -> bool:
    """The answer to `question`; no, while the server that it asks is too busy or not there yet."""
    try:
        return question()
    except redis.RedisError:
        return False
