"""The catalog in Redis: workers publish what they know, everybody else reads it and needs no task code.

Hash `NS:catalog`: a task's entry under its name, a queue's under `#` and its name. Entries outlive their
workers by 30 days, so that a queue that sleeps at zero still takes tasks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from callboard.catalog.contract import Contract
from callboard.catalog.queue import queue_named
from callboard.catalog.terms import Isolation, Terms
from callboard.clock import rfc3339, timedelta_ms
from callboard.errors import UnknownQueue, UnknownTask
from callboard.storage.keys import Keys
from callboard.storage.operation import Argument, Command, Operation, ScriptCall
from callboard.storage.scripts import script

RETENTION_MS: Final = timedelta_ms(timedelta(days=30))
#: How often a worker calls `refresh`, and after how long without it its entries give way to other code's.
REFRESH_SECONDS: Final = 60
ABANDONED_MS: Final = 3 * REFRESH_SECONDS * 1000
#: One script call, so that no other client waits long.
STEP, STEP_BYTES = 100, 256 * 1024

_PUBLISH = script("callboard.catalog", "publish")
_TOUCH = script("callboard.catalog", "touch")
_PRUNE = script("callboard.catalog", "prune")
_QUEUE_MARK = "#"


@dataclass(frozen=True, slots=True)
class PublishedTask:
    """A task as some worker knows it. Times in ms since 1970."""

    name: str
    queue: str
    schema: Mapping[str, Any]
    terms: Terms
    description: str
    is_async: bool
    version: str
    digest: str
    published_at: int
    seen_at: int
    worker: str

    def to_json(self) -> dict[str, Any]:
        """The catalog's item of the HTTP API."""
        limits = self.terms.document()
        return {
            "name": self.name,
            "queue": self.queue,
            "description": self.description,
            "schema": dict(self.schema),
            "priority": limits.pop("priority"),
            "retries": limits.pop("retries"),
            "max_attempts": self.terms.max_attempts,
            "tags": limits.pop("tags"),
            "limits": limits,
            "is_async": self.is_async,
            "version": self.version,
            "digest": self.digest,
            "published_at": rfc3339(self.published_at),
            "published_by": self.worker,
            "seen_at": rfc3339(self.seen_at),
        }


@dataclass(frozen=True, slots=True)
class PublishedQueue:
    """A queue's declaration as some worker knows it. None: the default or no limit, as in `Queue`."""

    name: str
    isolation: Isolation | None
    slots: int | None
    soft_limit_ms: int | None
    hard_limit_ms: int | None
    retries: int | None
    wait_objective_ms: int | None
    lease_ms: int | None
    retention_ms: int | None


@dataclass(frozen=True, slots=True)
class Catalog:
    """What was published, at one moment."""

    tasks: Mapping[str, PublishedTask] = field(default_factory=dict)
    queues: Mapping[str, PublishedQueue] = field(default_factory=dict)

    def task(self, name: str) -> PublishedTask:
        """Raises UnknownTask, which names the nearest."""
        try:
            return self.tasks[name]
        except KeyError:
            raise UnknownTask(name, self.tasks) from None

    def queue_names(self) -> set[str]:
        """Queues that are declared or have a task."""
        return {*self.queues, *(task.queue for task in self.tasks.values())}

    def check_queue(self, name: str, others: Iterable[str] = ()) -> str:
        """`name` if it is here or among `others` (the registry). Raises UnknownQueue with the nearest."""
        known = self.queue_names().union(others)
        if name not in known:
            raise UnknownQueue(name, known)
        return name


def publish(keys: Keys, contracts: Iterable[Contract], queues: Iterable[str], worker: str) -> Operation[None]:
    """Publish a worker's contracts and queues at its start; they replace what other code published before.

    Works at maxmemory. Also drops what nobody has refreshed for 30 days.
    """
    entries = _entries(contracts, queues)
    yield from _write(keys, entries, worker)
    fields = [name.decode() for name in (yield Command("HKEYS", keys.catalog))]
    others = [name for name in fields if name not in entries]
    yield from _drop_old(keys, others)


def refresh(keys: Keys, contracts: Iterable[Contract], queues: Iterable[str], worker: str) -> Operation[None]:
    """Keep a worker's entries alive, every REFRESH_SECONDS; writes anew what is gone or was left behind.

    Entries of other, living code stay: the newest serves submits.
    """
    entries = _entries(contracts, queues)
    names = list(entries)
    wanted: list[str] = []
    for start in range(0, len(names), STEP):
        pairs = [word for name in names[start : start + STEP] for word in (name, entries[name][0])]
        wanted += [name.decode() for name in (yield ScriptCall(_TOUCH, keys.catalog, (ABANDONED_MS, *pairs)))]
    if wanted:
        yield from _write(keys, {name: entries[name] for name in wanted}, worker)


def read(keys: Keys) -> Operation[Catalog]:
    """The whole catalog. Entries that this release cannot read are left out."""
    raw: Mapping[bytes, bytes] = yield Command("HGETALL", keys.catalog)
    tasks: dict[str, PublishedTask] = {}
    queues: dict[str, PublishedQueue] = {}
    for key, value in raw.items():
        name = key.decode()
        try:
            if name.startswith(_QUEUE_MARK):
                queues[name[1:]] = _queue(name[1:], value)
            else:
                tasks[name] = _task(name, value)
        except (ValueError, KeyError, TypeError):
            continue
    return Catalog(dict(sorted(tasks.items())), dict(sorted(queues.items())))


def read_queues(keys: Keys, names: Iterable[str]) -> Operation[dict[str, PublishedQueue]]:
    """The declarations of `names`, without the schemas; a queue that nobody declared is left out."""
    wanted = list(names)
    if not wanted:
        return {}
    values = yield Command("HMGET", keys.catalog, *(_QUEUE_MARK + name for name in wanted))
    found: dict[str, PublishedQueue] = {}
    for name, value in zip(wanted, values, strict=True):
        with suppress(ValueError, KeyError, TypeError, AttributeError):  # absent, or from a newer release
            found[name] = _queue(name, value)
    return found


def prune(keys: Keys) -> Operation[int]:
    """Drop what no worker has refreshed for 30 days; how many entries went."""
    fields = [name.decode() for name in (yield Command("HKEYS", keys.catalog))]
    return (yield from _drop_old(keys, fields))


def document(contract: Contract) -> dict[str, Any]:
    """The published form of a contract."""
    terms = contract.terms()
    return {
        "queue": terms.queue,
        "schema": contract.schema,
        "terms": terms.document(),
        "description": contract.description,
        "is_async": bool(contract.is_async),
        "version": contract.version,
    }


def digest(document: Mapping[str, Any]) -> str:
    """16 characters that tell two documents apart."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical).hexdigest()[:16]


def _entries(contracts: Iterable[Contract], queues: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Field -> digest and JSON."""
    documents = {contract.name: document(contract) for contract in contracts}
    documents |= {_QUEUE_MARK + name: queue_named(name).document() for name in queues}
    return {
        name: (digest(body), json.dumps(body, separators=(",", ":"), ensure_ascii=False))
        for name, body in documents.items()
    }


def _write(keys: Keys, entries: Mapping[str, tuple[str, str]], worker: str) -> Operation[None]:
    for words in _chunks(entries):
        yield ScriptCall(_PUBLISH, keys.catalog, (worker, *words))


def _drop_old(keys: Keys, fields: list[str]) -> Operation[int]:
    dropped = 0
    for start in range(0, len(fields), STEP):
        dropped += yield ScriptCall(_PRUNE, keys.catalog, (RETENTION_MS, *fields[start : start + STEP]))
    return dropped


def _chunks(entries: Mapping[str, tuple[str, str]]) -> Iterator[list[Argument]]:
    chunk: list[Argument] = []
    size = 0
    for name, (mark, body) in entries.items():
        if chunk and (len(chunk) >= 3 * STEP or size + len(body) > STEP_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk += [name, mark, body]
        size += len(body)
    if chunk:
        yield chunk


def _split(value: bytes) -> tuple[int, int, str, str, Any]:
    published, seen, mark, worker, body = value.split(b" ", 4)
    return int(published), int(seen), mark.decode(), worker.decode(), json.loads(body)


def _task(name: str, value: bytes) -> PublishedTask:
    published_at, seen_at, mark, worker, body = _split(value)
    return PublishedTask(
        name=name,
        queue=body["queue"],
        schema=body["schema"],
        terms=Terms.from_document(name, body["queue"], body["terms"]),
        description=body["description"],
        is_async=body["is_async"],
        version=body["version"],
        digest=mark,
        published_at=published_at,
        seen_at=seen_at,
        worker=worker,
    )


def _queue(name: str, value: bytes) -> PublishedQueue:
    body = _split(value)[4]
    return PublishedQueue(
        name=name,
        isolation=body["isolation"],
        slots=body["slots"],
        soft_limit_ms=body["soft_limit_ms"],
        hard_limit_ms=body["hard_limit_ms"],
        retries=body["retries"],
        wait_objective_ms=body["wait_objective_ms"],
        lease_ms=body["lease_ms"],
        retention_ms=body["retention_ms"],
    )
