"""One round of the doctor over a namespace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from callboard.catalog import presence
from callboard.doctor.fault import Fault
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard.storage.keys import QueueKeys
from callboard.storage.operation import Command, Operation, ScriptCall
from callboard.storage.scripts import script

T = TypeVar("T")

#: Ids in one script call.
STEP = 100
_SCAN = 500
_EXAMINE = script("callboard.doctor", "examine")
_ORPHANS = script("callboard.doctor", "orphans")
_PRIORITIES = script("callboard.doctor", "priorities")
_FORGET = script("callboard.broker", "forget")
#: Keys that belong to one task, or to one outbox item.
_PARTS = frozenset({"i", "m", "h", "l"})
_OUTBOX = "o"


class Checkup:
    """Examines every queue; `mend` also repairs. Iterate over `faults` once; then `tasks` and `queues` count.

    Works in steps of at most STEP tasks and in memory that does not grow with the store. On a store that is
    in use, tasks may be looked at that came meanwhile, and none is misjudged.
    """

    def __init__(self, connection: Connection, *, mend: bool = False) -> None:
        self.tasks = 0
        self.queues: set[str] = set()
        self._connection = connection
        self._keys = connection.keys
        self._mend = mend
        # A faulty id may be met again in another set; it is told of once.
        self._told: set[tuple[str, bytes]] = set()

    def faults(self) -> Iterator[Fault]:
        """Every fault as it is found, mended already if asked for.

        Raises StoreUnavailable, StoreFull (mending at maxmemory).
        """
        registered = {name.decode() for name in self._run(_members(self._keys.queues))}
        for name in sorted(registered):
            yield from self._queue(self._keys.queue(name))
        yield from self._strays(registered)

    def _queue(self, queue: QueueKeys) -> Iterator[Fault]:
        self.queues.add(queue.name)
        for members in self._scan("ZSCAN", queue.all):
            yield from self._examine(queue, members)
        for key in (*(queue.state(state) for state in State), queue.age):
            for members in self._scan("ZSCAN", key):
                yield from self._examine(queue, self._unlisted(queue, members))
        for members in self._scan("ZSCAN", queue.outbox):
            yield from self._orphans(queue, members)
        for priority in self._run(_call(_PRIORITIES, queue, self._flag)):
            yield self._fault(queue, "stale-fairness", f"priority {priority.decode()}")
        for workers in self._scan("HSCAN", queue.claims):
            yield from self._claims(queue, workers)

    def _strays(self, registered: set[str]) -> Iterator[Fault]:
        """Keys that no set leads to: one pass over the names of all keys of the namespace."""
        key_of = re.compile(
            rf"{re.escape(self._keys.namespace)}:\{{([^}}]+)\}}:(?:([a-z]+):)?(.*)", re.DOTALL
        )
        waiting: dict[tuple[str, bool], dict[str, None]] = {}
        for raw in self._connection.scan(f"{self._keys.namespace}:{{*"):
            found = key_of.fullmatch(raw.decode("utf-8", "replace"))
            if found is None:
                continue
            name, part, rest = found.groups()
            if name not in registered and (part in _PARTS or rest in set(State)):
                registered.add(name)
                if self._mend:
                    self._run(_one(Command("SADD", self._keys.queues, name)))
                yield self._fault(self._keys.queue(name), "unregistered", name)
                yield from self._queue(self._keys.queue(name))
            if part in _PARTS or part == _OUTBOX:
                batch = waiting.setdefault((name, part == _OUTBOX), {})
                batch[rest] = None
                if len(batch) >= STEP:
                    yield from self._stray(name, list(batch), outbox=part == _OUTBOX)
                    batch.clear()
        for (name, outbox), batch in waiting.items():
            yield from self._stray(name, list(batch), outbox=outbox)

    def _stray(self, name: str, subjects: list[str], *, outbox: bool) -> Iterator[Fault]:
        queue = self._keys.queue(name)
        if outbox:
            yield from self._orphans(queue, [subject.encode() for subject in subjects])
        elif subjects:
            yield from self._examine(queue, self._unlisted(queue, [local.encode() for local in subjects]))

    def _examine(self, queue: QueueKeys, members: Iterable[bytes]) -> Iterator[Fault]:
        for chunk in _chunks(member for member in members if (queue.name, member) not in self._told):
            self.tasks += len(chunk)
            answers = self._run(_call(_EXAMINE, queue, self._flag, *chunk))
            for member, codes in zip(chunk, answers, strict=True):
                if codes:
                    self._told.add((queue.name, member))
                for code in codes.decode().split():
                    yield self._fault(queue, code, f"{queue.name}_{member.decode('utf-8', 'replace')}")

    def _unlisted(self, queue: QueueKeys, members: list[bytes]) -> list[bytes]:
        """Those that `all` does not know: the others have been examined."""
        if not members:
            return []
        scores = self._run(_one(Command("ZMSCORE", queue.all, *members)))
        return [member for member, score in zip(members, scores, strict=True) if score is None]

    def _orphans(self, queue: QueueKeys, members: Iterable[bytes]) -> Iterator[Fault]:
        for chunk in _chunks(members):
            for member in self._run(_call(_ORPHANS, queue, self._flag, *chunk)):
                yield self._fault(queue, "outbox-orphan", member.decode("utf-8", "replace"))

    def _claims(self, queue: QueueKeys, workers: list[bytes]) -> Iterator[Fault]:
        for worker in workers:
            name = worker.decode("utf-8", "replace")
            if self._run(presence.alive(self._keys, name)):
                continue
            if self._mend:
                self._run(_call(_FORGET, queue, worker))
            yield self._fault(queue, "stale-claim", name)

    def _scan(self, command: str, key: str) -> Iterator[list[bytes]]:
        """The members of a set or the fields of a hash, in steps; one may come twice."""
        cursor = 0
        while True:
            cursor, page = self._run(_one(Command(command, key, cursor, "COUNT", _SCAN)))
            members = list(page) if isinstance(page, dict) else [row[0] for row in page]
            if members:
                yield members
            if int(cursor) == 0:
                return

    def _fault(self, queue: QueueKeys, code: str, subject: str) -> Fault:
        return Fault(queue.name, code, subject, self._mend)

    @property
    def _flag(self) -> str:
        return "1" if self._mend else "0"

    def _run(self, operation: Operation[T]) -> T:
        return self._connection.run(operation)


def _chunks(members: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(members)
    while chunk := list(islice(rest, STEP)):
        yield chunk


def _one(command: Command) -> Operation[Any]:
    return (yield command)


def _members(key: str) -> Operation[list[bytes]]:
    return sorted((yield Command("SMEMBERS", key)))


def _call(what: Any, queue: QueueKeys, *args: bytes | str) -> Operation[Any]:
    return (yield ScriptCall(what, queue.prefix, args))
