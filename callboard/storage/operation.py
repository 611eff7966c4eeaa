"""Operations: what the doors do to Redis, written once for sync and async callers.

A door is a generator. It yields one request at a time and gets the reply sent back; a connection, sync or
async, drives it. So there is one implementation of each operation, and none of them does I/O itself.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from callboard.storage.scripts import Script

Argument = bytes | str | int | float

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Command:
    """A plain Redis command, as its words. All of its keys belong to one slot.

    Only commands that may be sent twice belong here: a reply can be lost after the command has run.
    """

    words: tuple[Argument, ...]

    def __init__(self, *words: Argument) -> None:
        object.__setattr__(self, "words", words)


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """A Lua script on one queue. `prefix` is `QueueKeys.prefix`.

    A script with the fragment `event` or `logs` gets its first argument, "FULL:KEEP", from the connection.
    """

    script: Script
    prefix: str
    args: Sequence[Argument]


@dataclass(frozen=True, slots=True)
class Stencil:
    """A script call that lacks its last argument, for calls that differ in nothing else.

    `head`: all that goes over the wire before that argument. `below`: the share of maxmemory up to which it
    says the right thing.
    """

    call: ScriptCall
    head: bytes
    below: float

    def filled(self, last: bytes) -> ScriptCall:
        """The whole call."""
        return ScriptCall(self.call.script, self.call.prefix, (*self.call.args, last))


@dataclass(frozen=True, slots=True)
class ScriptCalls:
    """Calls of one script on one queue, in order; the reply is the list of their replies.

    Where it can, the connection asks for the next call while Redis is busy with the one before: `calls` may
    do its work as late as that.
    """

    calls: Iterator[ScriptCall]


@dataclass(frozen=True, slots=True)
class Pressure:
    """Asks for used memory as a share of maxmemory where `prefix` lives, at most a second old.

    0.0 without a maxmemory.
    """

    prefix: str


@dataclass(frozen=True, slots=True)
class Everywhere:
    """A plain command sent to every primary, for what belongs to a server and not to a key (INFO).

    The reply maps each node's name (`NodeOf`'s words; one server is named "") to its reply, or to the
    CallboardError with which that node failed.
    """

    words: tuple[Argument, ...]

    def __init__(self, *words: Argument) -> None:
        object.__setattr__(self, "words", words)


@dataclass(frozen=True, slots=True)
class NodeOf:
    """Asks, without I/O, for the name of the node that serves `prefix`; "" where there is one server."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Asks whether one replica has what was written before in the slot of `key`, a queue's meta hash.

    Waits for that, `within_ms` at most.
    """

    key: str
    within_ms: int


Request = Command | ScriptCall | ScriptCalls | Pressure | Everywhere | NodeOf | Confirmed
Operation = Generator[Request, Any, T]
