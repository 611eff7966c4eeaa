"""The words between a worker and its children: msgpack arrays over a socket, first a kind, then fields."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Final

import msgpack

from callboard_worker.slots.slot import Assignment, Outcome, TaskError

# To the forkserver and from it.
PREPARE: Final = 1  # settings: dict
PREPARED: Final = 2  # names of threads that the modules started: list
BROKEN: Final = 3  # why the modules cannot be imported: str
FORK: Final = 4  # settings of the child: dict; with its file descriptors
FORKED: Final = 5  # pid
REFUSED: Final = 6  # why not: str
# To a child.
RUN: Final = 10  # number, assignment
LEAVE: Final = 11
# From a child.
READY: Final = 21
UNREADY: Final = 22  # why: str
LOGGED: Final = 23  # number, level, text
PROGRESSED: Final = 24  # number, blob
DROPPED: Final = 25  # number, count of lines
DONE: Final = 26  # number, outcome

# Below the size from which malloc asks the kernel for every buffer.
_RECEIVE_BYTES = 64 * 1024
_LARGEST_FRAME_BYTES = 32 * 1024 * 1024

Frame = list[Any]


class BadFrame(Exception):
    """The other side speaks no frames: something else writes into its socket."""


def pack(*fields: Any) -> bytes:
    """One frame. Lone surrogates in text become question marks."""
    packed: bytes = msgpack.packb(fields, unicode_errors="replace")
    return packed


class Reader:
    """Frames out of a stream of bytes."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=_LARGEST_FRAME_BYTES, strict_map_key=False, unicode_errors="replace"
        )

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes. Raises BadFrame."""
        try:
            self._unpacker.feed(data)
            for frame in self._unpacker:
                if not (isinstance(frame, list) and frame):
                    raise BadFrame(f"expected a frame, got {type(frame).__name__}")
                yield frame
        except (ValueError, msgpack.exceptions.UnpackException) as error:
            raise BadFrame(str(error)) from error


def receive(connection: socket.socket) -> bytes:
    """What has arrived, waiting for it; empty when the other side has closed or died."""
    try:
        return connection.recv(_RECEIVE_BYTES)
    except (ConnectionError, OSError):
        return b""


def assignment_fields(assignment: Assignment) -> list[Any]:
    """What a child needs of an assignment. Deadlines stay with the worker, which keeps them."""
    return [
        assignment.task_id,
        assignment.name,
        assignment.queue,
        assignment.owner,
        assignment.attempt,
        assignment.max_attempts,
        assignment.payload,
        assignment.message,
        assignment.soft_limit_ms,
        assignment.memory_limit_bytes,
    ]


def assignment_from(fields: list[Any]) -> Assignment:
    """The inverse of `assignment_fields`."""
    task_id, name, queue, owner, attempt, max_attempts, payload, message, soft_ms, memory = fields
    return Assignment(
        task_id=task_id,
        name=name,
        queue=queue,
        owner=owner,
        token="",
        attempt=attempt,
        max_attempts=max_attempts,
        payload=payload,
        message=message,
        soft_limit_ms=soft_ms,
        memory_limit_bytes=memory,
    )


def outcome_fields(outcome: Outcome, *, pickled: bytes | None = None) -> list[Any]:
    """An outcome without the objects that cannot leave their process."""
    error = outcome.error
    return [
        outcome.kind,
        outcome.result,
        None if error is None else [error.type, error.message, error.traceback, error.retryable],
        outcome.retry_after_ms,
        outcome.counts,
        outcome.run_ms,
        pickled,
    ]


def outcome_from(fields: list[Any]) -> Outcome:
    """The inverse of `outcome_fields`."""
    kind, result, error, retry_after_ms, counts, run_ms, pickled = fields
    return Outcome(
        kind=kind,
        result=result,
        error=None if error is None else TaskError(*error),
        retry_after_ms=retry_after_ms,
        counts=counts,
        run_ms=run_ms,
        pickled=pickled,
    )
