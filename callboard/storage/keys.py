"""Every Redis key, spelled once. The Lua counterpart is `broker/lua/keys.lua`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from callboard import clock

_REGISTER_SECONDS = 60.0

#: The six states' sets, in the order of a task's life.
STATE_SETS = ("pending", "queued", "running", "completed", "failed", "cancelled")


class QueueKeys:
    """Keys of one queue. All carry the hash tag `{QUEUE}`, so a queue lives in one Redis Cluster slot.

    `prefix` is what scripts get as KEYS[1]. Task ids in here are local: without the queue's name.
    """

    __slots__ = ("name", "prefix")

    def __init__(self, namespace: str, name: str) -> None:
        self.name = name
        self.prefix = f"{namespace}:{{{name}}}:"

    def state(self, state: str) -> str:
        """Sorted set of the local ids in `state`."""
        return self.prefix + state

    @property
    def all(self) -> str:
        """Sorted set of every local id by creation time, ms."""
        return self.prefix + "all"

    @property
    def age(self) -> str:
        """Sorted set of queued ids by the time they became ready, ms."""
        return self.prefix + "age"

    @property
    def meta(self) -> str:
        """Hash: `paused`, the clock `t`, the fair clocks `v0…v9` and `s0…s9`, miscounts `g0…g9`."""
        return self.prefix + "meta"

    @property
    def events(self) -> str:
        """Stream of what happened, for eyes."""
        return self.prefix + "events"

    @property
    def outbox(self) -> str:
        """Sorted set of follow-ups to deliver, by the time they were written, ms."""
        return self.prefix + "outbox"

    @property
    def wake(self) -> str:
        """List that idle consumers block on."""
        return self.prefix + "wake"

    @property
    def claims(self) -> str:
        """Hash: worker -> its last claim, "nonce id id …"."""
        return self.prefix + "claims"

    @property
    def runs(self) -> str:
        """Hash of per-minute figures: `MINUTE:n`, `:ms`, `:f`, `:rBUCKET`, `:wBUCKET`."""
        return self.prefix + "runs"

    @property
    def loops(self) -> str:
        """Sorted set of maintenance leases, "LOOP HOLDER" by expiry, ms."""
        return self.prefix + "loops"

    def fair(self, priority: int) -> str:
        """Hash of fairness keys with a place at `priority`: "tail served n"."""
        return f"{self.prefix}fair:{priority}"

    def immutable(self, local_id: str) -> str:
        """String: what never changes of a task."""
        return f"{self.prefix}i:{local_id}"

    def mutable(self, local_id: str) -> str:
        """String: state, token, progress and times of a task."""
        return f"{self.prefix}m:{local_id}"

    def history(self, local_id: str) -> str:
        """String: failed attempts, interruptions and the result of a task."""
        return f"{self.prefix}h:{local_id}"

    def log(self, local_id: str) -> str:
        """String: the log of a task."""
        return f"{self.prefix}l:{local_id}"

    def outbox_body(self, member: str) -> str:
        """String: the body of an outbox item."""
        return f"{self.prefix}o:{member}"

    def tombstone(self, local_id: str) -> str:
        """String: the enqueue nonce of a task that was deleted within the last minute."""
        return f"{self.prefix}t:{local_id}"

    def last_run(self, local_id: str) -> str:
        """String: the number of a foreign id's last run, as long as that run is there."""
        return f"{self.prefix}r:{local_id}"

    def unreadable(self, local_id: str) -> str:
        """String: the bytes of a record that could not be decoded, kept for a week."""
        return f"{self.prefix}bad:{local_id}"

    def done(self, local_id: str) -> str:
        """Pub/sub channel that hears when a task ends."""
        return f"{self.prefix}done:{local_id}"

    def control(self, worker: str) -> str:
        """Pub/sub channel that tells a worker of a cancel at once."""
        return f"{self.prefix}control:{worker}"


class Keys:
    """Keys of one namespace (`CALLBOARD_NAMESPACE`)."""

    def __init__(self, namespace: str = "cb") -> None:
        self.namespace = namespace
        self.queue = lru_cache(maxsize=4096)(self._queue)
        # When this process put a queue into `queues`, so that a submit stays one round trip (monotonic).
        self._registered: dict[str, float] = {}

    def _queue(self, name: str) -> QueueKeys:
        return QueueKeys(self.namespace, name)

    @property
    def queues(self) -> str:
        """Set of the names of queues that have had a task or a worker."""
        return f"{self.namespace}:queues"

    def unregistered(self, names: Sequence[str]) -> list[str]:
        """Those that this process has not put into `queues` within the last minute.

        Once a minute, not once a process: a registry that was lost with its Redis comes back.
        """
        return [name for name in names if not self.registered(name)]

    def registered(self, name: str) -> bool:
        """Whether `unregistered` would leave it out."""
        return clock.monotonic() - self._registered.get(name, float("-inf")) <= _REGISTER_SECONDS

    def note_registered(self, name: str) -> None:
        """It stands in `queues` now."""
        self._registered[name] = clock.monotonic()

    @property
    def workers(self) -> str:
        """Set of worker ids that were present; those whose entry has gone are dropped by readers."""
        return f"{self.namespace}:workers"

    def worker(self, worker: str) -> str:
        """String: a worker's presence (JSON), gone 20 s after its last renewal."""
        return f"{self.namespace}:worker:{worker}"

    def origin(self, worker: str) -> str:
        """String: where a worker lives, and since when it drains (JSON), kept for a day."""
        return f"{self.namespace}:origin:{worker}"

    @property
    def catalog(self) -> str:
        """Hash: task name -> its published contract."""
        return f"{self.namespace}:catalog"

    @property
    def timetable(self) -> str:
        """Hash: schedule id -> schedule."""
        return f"{self.namespace}:timetable"

    @property
    def schema(self) -> str:
        """Hash: the store's schema numbers, `writes` and `oldest_reader`."""
        return f"{self.namespace}:schema"
