"""The versioned wire form of a record: `i:ID`, `m:ID`, `h:ID` and `l:ID`. Decoded nowhere else.

Each string opens with a version byte. `m` is written by Lua (`broker/lua/record.lua` numbers its fields);
`i` is written here and opaque to Lua; `h` and `l` are msgpack entries one after another.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

VERSION = b"\x01"


class UndecodableRecord(ValueError):
    """These bytes are no record that this version can read."""


class Immutable(NamedTuple):
    """What never changes of a task. `payload`: a JSON object, or b"" when `message` (Dramatiq's) is given."""

    payload: bytes = b""
    message: bytes = b""
    tags: Sequence[str] = ()
    traceparent: str = ""
    resubmitted_from: str = ""
    schedule_id: str = ""
    parent_id: str = ""
    workflow_run_id: str = ""
    unique_key: str = ""

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(list(self))
        return VERSION + packed

    def around_payload(self) -> tuple[bytes, bytes]:
        """What `pack` puts before and after the packed payload."""
        packed = self.pack()
        start = len(VERSION) + 1  # fewer than 16 fields: the array's head is one byte
        return packed[:start], packed[start + len(msgpack.packb(self.payload)) :]

    @classmethod
    def unpack(cls, raw: bytes) -> Immutable:
        """Raises UndecodableRecord."""
        fields = _unpack(raw, raw_strings=False)
        if not isinstance(fields, list) or len(fields) < len(cls._fields):
            raise UndecodableRecord("the immutable part has too few fields")
        return cls(*fields[: len(cls._fields)])


class Mutable(NamedTuple):
    """The fields of `m:ID`, in the order of `record.lua`.

    Text as bytes; times in ms, 0 for none; `wait` is -1 before the first start.
    """

    state: bytes
    token: bytes
    outcome: bytes
    priority: int
    score: int
    fairness_key: bytes
    weight: float
    name: bytes
    owner: bytes
    attempt: int
    max_attempts: int
    losses: int
    created: int
    due: int
    queued: int
    started: int
    wait: int
    finished: int
    expires: int
    cancel: int
    terminate: int
    reason: bytes
    worker: bytes
    progress: bytes
    progress_seq: int
    log_lines: int
    log_bytes: int
    log_seq: int
    options: bytes
    nonce: bytes
    runs: int
    misses: int
    history: int
    replay: bytes

    @classmethod
    def unpack(cls, raw: bytes) -> Mutable:
        """Raises UndecodableRecord."""
        fields = _unpack(raw, raw_strings=True)
        if not isinstance(fields, list) or len(fields) < len(cls._fields):
            raise UndecodableRecord("the mutable part has too few fields")
        return cls(*fields[: len(cls._fields)])


@functools.lru_cache(maxsize=1024)
def sides(
    fairness_key: str, weight: float, name: str, owner: str, max_attempts: int, nonce: str
) -> tuple[bytes, bytes]:
    """A new record's fields from fairness_key to losses, and from worker to the end, packed.

    What a submit of the same task says again and again; `submit.lua` puts the times between.
    """
    pack = functools.partial(msgpack.packb, use_bin_type=False)
    before = (fairness_key, weight, name, owner, 0, max_attempts, 0)
    after = ("", "", 0, 0, 0, 0, "", nonce, 0, 0, 0, "")
    return b"".join(map(pack, before)), b"".join(map(pack, after))


@dataclass(frozen=True, slots=True)
class AttemptEntry:
    """A finished attempt that did not complete the task. `error`: JSON or b""."""

    number: int
    outcome: str
    started: int
    finished: int
    worker: str
    error: bytes


@dataclass(frozen=True, slots=True)
class InterruptionEntry:
    """A claim that ended without spending an attempt."""

    at: int
    cause: str
    worker: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a task's log."""

    at: int
    attempt: int
    level: str
    message: str


def history(raw: bytes | None) -> tuple[list[AttemptEntry], list[InterruptionEntry], bytes | None]:
    """Attempts, interruptions and the result (JSON, None when there is none) of `h:ID`."""
    attempts: list[AttemptEntry] = []
    interruptions: list[InterruptionEntry] = []
    result: bytes | None = None
    for entry in _entries(raw):
        kind = entry[0]
        if kind == b"A":
            number, outcome, started, finished, worker, _token, error = entry[1:8]
            attempts.append(AttemptEntry(number, outcome.decode(), started, finished, worker.decode(), error))
        elif kind == b"I":
            interruptions.append(InterruptionEntry(entry[1], entry[2].decode(), entry[3].decode()))
        elif kind == b"R":
            result = entry[1]
    return attempts, interruptions, result


def log(raw: bytes | None) -> list[LogEntry]:
    """The lines of `l:ID`, oldest first."""
    return [
        LogEntry(at, attempt, level.decode(), message.decode("utf-8", "replace"))
        for at, attempt, level, message, *_ in _entries(raw)
    ]


def log_line(at: int, attempt: int, level: str, message: str) -> bytes:
    """One packed line for `note` and the finishing operations."""
    packed: bytes = msgpack.packb([at, attempt, level, message])
    return packed


def _unpack(raw: bytes, *, raw_strings: bool) -> Any:
    if raw[:1] != VERSION:
        raise UndecodableRecord(f"version byte {raw[:1]!r} is not one that this version reads")
    try:
        return msgpack.unpackb(raw[1:], raw=raw_strings)
    except (ValueError, msgpack.UnpackException) as error:
        raise UndecodableRecord(str(error)) from error


def _entries(raw: bytes | None) -> Iterator[list[Any]]:
    if not raw:
        return
    if raw[:1] != VERSION:
        raise UndecodableRecord(f"version byte {raw[:1]!r} is not one that this version reads")
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=0)
    unpacker.feed(raw[1:])
    try:
        yield from unpacker
    except (ValueError, msgpack.UnpackException) as error:
        raise UndecodableRecord(str(error)) from error
