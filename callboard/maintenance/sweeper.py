"""The sweeper: what transitions leave behind and nobody reads any more."""

from __future__ import annotations

from dataclasses import dataclass

from callboard import clock
from callboard.catalog import presence
from callboard.maintenance.policy import Policies
from callboard.maintenance.sampler import WINDOW_MINUTES
from callboard.storage.connection import Connection
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation, ScriptCall
from callboard.storage.scripts import script

_TIDY = script("callboard.maintenance", "tidy")
_MOMENT = script("callboard.maintenance", "moment")
_FORGET = script("callboard.broker", "forget")

PRIORITIES = 10
#: Fields looked at in one step through a hash.
_SCAN = 500
#: A consumer is forgotten when its presence has been missing this long: a new one claims, then shows itself.
ABSENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What went: stream entries, fields of run figures, fairness keys, consumers' last claims."""

    events: int = 0
    runs: int = 0
    fair_keys: int = 0
    claims: int = 0

    @property
    def again_seconds(self) -> float | None:
        """It can always wait for the loop's interval."""
        return None


class Sweeper:
    """Trims a queue's event stream by age, old run figures, idle fairness keys and claims of the dead."""

    name = "sweeper"
    interval_seconds = 30.0

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._absent: dict[tuple[str, str], float] = {}

    def run_once(self, connection: Connection, queue: str) -> Swept:
        """One bounded pass. Raises StoreUnavailable."""
        keys = connection.keys
        now_ms = connection.run(_now(keys, queue))
        return Swept(
            events=connection.run(trim_events(keys, queue, now_ms - self._policies(queue).events_ms)),
            runs=connection.run(drop_runs(keys, queue, now_ms // 60_000 - WINDOW_MINUTES)),
            fair_keys=sum(connection.run(tidy(keys, queue, priority)) for priority in range(PRIORITIES)),
            claims=self._forget_the_dead(connection, queue),
        )

    def _forget_the_dead(self, connection: Connection, queue: str) -> int:
        keys, now = connection.keys, clock.monotonic()
        dead: list[str] = []
        for worker in connection.run(_claimants(keys, queue)):
            if connection.run(presence.alive(keys, worker)):
                self._absent.pop((queue, worker), None)
            elif now - self._absent.setdefault((queue, worker), now) >= ABSENCE_SECONDS:
                dead.append(worker)
        if not dead:
            return 0
        for worker in dead:
            del self._absent[queue, worker]
        return connection.run(forget(keys, queue, dead))


def trim_events(keys: Keys, queue: str, before_ms: int) -> Operation[int]:
    """Drop events older than `before_ms`, by whole nodes of the stream; how many went."""
    gone: int = yield Command("XTRIM", keys.queue(queue).events, "MINID", "~", max(0, before_ms))
    return gone


def drop_runs(keys: Keys, queue: str, before_minute: int) -> Operation[int]:
    """Drop run figures of minutes before `before_minute` (minutes since 1970); how many fields went."""
    runs = keys.queue(queue).runs
    cursor, gone = 0, 0
    for _ in range(100):
        reply = yield Command("HSCAN", runs, cursor, "COUNT", _SCAN)
        cursor, fields = int(reply[0]), reply[1]
        old = [field for field in fields if int(field.split(b":", 1)[0]) < before_minute]
        if old:
            gone += yield Command("HDEL", runs, *old)
        if cursor == 0:
            break
    return gone


def tidy(keys: Keys, queue: str, priority: int) -> Operation[int]:
    """Drop fairness keys that hold no place at `priority`; how many went."""
    cursor, gone = b"0", 0
    for _ in range(20):
        cursor, dropped = yield ScriptCall(_TIDY, keys.queue(queue).prefix, (priority, cursor))
        gone += dropped
        if cursor == b"0":
            break
    return gone


def forget(keys: Keys, queue: str, workers: list[str]) -> Operation[int]:
    """Drop the last claims of consumers that have gone; how many were known."""
    known: int = yield ScriptCall(_FORGET, keys.queue(queue).prefix, workers)
    return known


def _claimants(keys: Keys, queue: str) -> Operation[list[str]]:
    reply = yield Command("HSCAN", keys.queue(queue).claims, 0, "COUNT", _SCAN)
    return [worker.decode() for worker in reply[1]]


def _now(keys: Keys, queue: str) -> Operation[int]:
    now_ms: int = yield ScriptCall(_MOMENT, keys.queue(queue).prefix, ())
    return now_ms
