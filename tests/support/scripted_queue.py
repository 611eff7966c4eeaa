"""One queue on a real server whose clock a test holds in its hand, and every script of it as a method.

The scripts are the real ones. Only `TIME` is swapped, for a key of the queue; the rest of the fragment `time`
stays, the clamp included. Replies come as the scripts give them, text decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, TypeVar

import msgpack

from callboard.records import layout
from callboard.storage.connection import Connection
from callboard.storage.operation import Operation, ScriptCall
from callboard.storage.scripts import Script, join

START_MS = 1_800_000_000_000
LEASE_MS = 20_000
T = TypeVar("T")

STATES = ("pending", "queued", "running", "completed", "failed", "cancelled")
TERMINAL = ("completed", "failed", "cancelled")

_HELD_CLOCK = """(function()
  local ms = tonumber(redis.call('GET', P .. 'clock'))
  return { math.floor(ms / 1000), ms % 1000 * 1000 }
end)()"""
_TIME = files("callboard.broker").joinpath("lua", "time.lua").read_text(encoding="utf-8")
assert _TIME.count("call('TIME')") == 1
TIME = _TIME.replace("call('TIME')", _HELD_CLOCK)

_BROKER = ("turn", "submit", "renew", "note", "cancel", "retry", "delete", "purge", "pause", "forget",
           "backlog", "reweigh")  # fmt: skip
_MAINTENANCE = ("promote", "rescue", "prune", "lease", "delivered", "strip", "tidy", "expired")
SCRIPTS: dict[str, Script] = {
    name: join(f"callboard.{owner}", name, replacing={"time": TIME})
    for owner, names in (("broker", _BROKER), ("maintenance", _MAINTENANCE))
    for name in names
}

# A first write that frees: a SET alone is refused at maxmemory, and time goes on there too.
_SET_CLOCK = "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1])"

# The whole queue in one reply: the tests look at it after every step.
_LOOK = """
local P = KEYS[1]
local sets, records, fair = {}, {}, {}
for index, name in ipairs({ 'pending', 'queued', 'running', 'completed', 'failed', 'cancelled', 'all', 'age',
    'outbox' }) do
  sets[index] = redis.call('ZRANGE', P .. name, 0, -1, 'WITHSCORES')
end
for index, id in ipairs(redis.call('ZRANGE', P .. 'all', 0, -1)) do
  records[index] = { id, redis.call('GET', P .. 'm:' .. id), redis.call('GET', P .. 'h:' .. id),
    redis.call('GET', P .. 'l:' .. id), redis.call('EXISTS', P .. 'i:' .. id) }
end
for p = 0, 9 do fair[p + 1] = redis.call('HGETALL', P .. 'fair:' .. p) end
return { sets, records, fair, redis.call('HGETALL', P .. 'meta'), redis.call('HGETALL', P .. 'claims'),
  redis.call('HGETALL', P .. 'runs'), redis.call('LLEN', P .. 'wake') }
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One task as it is stored."""

    mutable: layout.Mutable
    history: bytes | None
    log: bytes | None
    has_body: bool

    @property
    def state(self) -> str:
        return self.mutable.state.decode()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything of a queue at one moment.

    Sets are id -> score in their order; `fair` is priority -> key -> (tail, served, n).
    """

    sets: dict[str, dict[str, float]]
    records: dict[str, Record]
    fair: dict[int, dict[str, tuple[int, int, int]]]
    meta: dict[str, str]
    claims: dict[str, list[str]]
    runs: dict[str, int]
    wake: int

    def ordered(self, name: str) -> list[str]:
        """Ids of a set in its order."""
        return list(self.sets[name])

    @property
    def durable(self) -> tuple[Any, ...]:
        """What a repeated call must not change: all but the clock's mark and the wake list."""
        meta = {name: value for name, value in self.meta.items() if name != "t"}
        return (self.sets, self.records, self.fair, meta, self.claims, self.runs)


@dataclass(slots=True)
class NewTask:
    """The arguments of one task for submit.lua; times in ms."""

    id: str
    name: str = "a.task"
    owner: str = "default"
    key: str = "default"
    weight: float = 1
    priority: int = 5
    delay_ms: int = 0
    due_at: int = 0
    expires_in_ms: int = 0
    max_attempts: int = 4
    nonce: str = ""
    body: bytes = field(default_factory=lambda: layout.Immutable(payload=b"{}").pack())

    def pack(self) -> bytes:
        fields = [
            self.id, self.body, self.name, self.owner, self.key, self.weight, self.priority,
            *layout.sides(self.key, self.weight, self.name, self.owner, self.max_attempts, self.nonce),
            self.delay_ms, self.due_at, self.expires_in_ms, self.nonce,
        ]  # fmt: skip
        return pack(fields)


@dataclass(frozen=True, slots=True)
class Turn:
    """The reply of turn.lua; `claimed` is [(id, token)], `bodies` the stored parts of the claimed."""

    answers: list[str]
    claimed: list[tuple[str, str]]
    next_due: int
    left: int
    paused: int
    bodies: list[tuple[bytes, bytes]] = field(compare=False, default_factory=list)


def pack(value: Any) -> bytes:
    """A value as Lua's cmsgpack reads it: text and bytes are one type there."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


def operation(
    kind: str, id: str, token: str, *rest: Any, progress: tuple[bytes, int] = (b"", 0),
    lines: Sequence[bytes] = (), first: int = 1,
) -> bytes:  # fmt: skip
    """One operation for turn.lua; see finishing.lua for what `rest` is."""
    return pack([kind, id, token, progress[0], progress[1], first, list(lines), *rest])


def line(message: str, at: int = START_MS) -> bytes:
    """A packed log line."""
    return layout.log_line(at, 1, "info", message)


class ScriptedQueue:
    """Scripts of one queue, called one by one. `clock` is what they take for TIME, in ms."""

    def __init__(self, connection: Connection, name: str = "q") -> None:
        self.connection = connection
        self.keys = connection.keys.queue(name)
        self.client = connection.client
        self._nonces = 0
        self.clock = START_MS

    @property
    def clock(self) -> int:
        return self._clock

    @clock.setter
    def clock(self, ms: int) -> None:
        self._clock = ms
        self.client.eval(_SET_CLOCK, 1, self.keys.prefix + "clock", ms)

    def nonce(self) -> str:
        """One that has not been used in this queue; numbered, as the runner's are."""
        self._nonces += 1
        return f"{self._nonces}:x"

    def call(self, script: str, *args: Any) -> Any:
        """Any script by its name; text in the reply decoded, bytes that are no text left."""
        return _text_of(self.connection.execute(ScriptCall(SCRIPTS[script], self.keys.prefix, args)))

    def drive(self, operation: Operation[T]) -> T:
        """What `operation` comes to when each script that it calls is the one of the same name here."""
        reply: Any = None
        while True:
            try:
                request = operation.send(reply)
            except StopIteration as end:
                return end.value
            assert isinstance(request, ScriptCall)
            reply = self.call(request.script.name, *request.args)

    def submit(self, *tasks: NewTask, depth: int = 0) -> list[tuple[str, str]]:
        lines = self.call("submit", depth, *(task.pack() for task in tasks)).split("\n")
        answers = []
        for task, line in zip(tasks, lines, strict=True):
            state, _created, *other = line.split(" ")
            answers.append((other[0] if other else task.id, state))
        return answers

    def turn(
        self, want: int = 0, *operations: bytes, worker: str = "w1", nonce: str | None = None,
        lease_ms: int = LEASE_MS,
    ) -> Turn:  # fmt: skip
        raw = self.connection.execute(
            ScriptCall(
                SCRIPTS["turn"],
                self.keys.prefix,
                (worker, nonce or self.nonce(), want, lease_ms, *operations),
            )
        )
        answers, claimed, due, left, paused = raw
        return Turn(
            [answer.decode() for answer in answers],
            [(id.decode(), token.decode()) for id, token, _, _ in claimed],
            due,
            left,
            paused,
            [(body, mutable) for _, _, body, mutable in claimed],
        )

    def claim(self, want: int = 1, **options: Any) -> list[tuple[str, str]]:
        return self.turn(want, **options).claimed

    def settle(self, kind: str, id: str, token: str, *rest: Any, **told: Any) -> str:
        """The answer to one operation, sent alone."""
        [answer] = self.turn(0, operation(kind, id, token, *rest, **told)).answers
        return answer

    def complete(self, id: str, token: str, result: bytes = b"{}", followers: Sequence[bytes] = ()) -> str:
        return self.settle("completed", id, token, result, list(followers))

    def fail(self, id: str, token: str, error: bytes = b"{}") -> str:
        return self.settle("failed", id, token, "failed", "exhausted", error, [])

    def retry_later(self, id: str, token: str, delay_ms: int = 0) -> str:
        return self.settle("retry", id, token, "failed", b"{}", delay_ms, b"")

    def renew(self, *pairs: tuple[str, str], lease_ms: int = LEASE_MS) -> list[str]:
        return self.call("renew", lease_ms, *(word for pair in pairs for word in pair))

    def note(
        self, id: str, token: str, progress: bytes = b"", seq: int = 0, first: int = 1,
        lines: Sequence[bytes] = (),
    ) -> str:  # fmt: skip
        [answer] = self.call("note", pack([id, token, progress, seq, first, list(lines)]))
        return answer

    def cancel(self, id: str, *, terminate: bool = False) -> tuple[str, str]:
        word, state = self.call("cancel", id, "1" if terminate else "0")
        return word, state

    def retry(self, id: str, nonce: str | None = None, attempts: int = 1) -> tuple[str, str]:
        word, state = self.call("retry", id, nonce or self.nonce(), attempts)
        return word, state

    def delete(self, id: str) -> tuple[str, str]:
        word, state = self.call("delete", id)
        return word, state

    def rescue(self, *triples: tuple[str, str, bool | str], losses: int = 3, cause: str = "") -> list[str]:
        """`triples`: id, token, and a verdict, or whether the worker vanished (a strike)."""
        verdicts: dict[bool | str, str] = {True: "strike", False: "present"}
        words = [
            word for id, token, gone in triples for word in (id, token, verdicts.get(gone, str(gone)), cause)
        ]
        return self.call("rescue", losses, *words)

    def look(self) -> Snapshot:
        """The whole queue, in one step."""
        raw = self.client.eval(_LOOK, 1, self.keys.prefix)
        assert isinstance(raw, list)
        sets, records, fair, meta, claims, runs, wake = raw
        names = (*STATES, "all", "age", "outbox")
        return Snapshot(
            {name: _scores(flat) for name, flat in zip(names, sets, strict=True)},
            {
                id.decode(): Record(layout.Mutable.unpack(mutable), history, log, body == 1)
                for id, mutable, history, log, body in records
            },
            {p: _places(flat) for p, flat in enumerate(fair) if flat},
            {name.decode(): value.decode() for name, value in _pairs(meta).items()},
            {worker.decode(): memo.decode().split() for worker, memo in _pairs(claims).items()},
            {name.decode(): int(value) for name, value in _pairs(runs).items()},
            wake,
        )

    def look_at_sets(self) -> dict[str, set[str]]:
        """The ids in each state's set, empty ones left out; also where records cannot be decoded."""
        found: dict[str, set[str]] = {}
        for state in STATES:
            ids: Any = self.client.zrange(self.keys.state(state), 0, -1)
            if ids:
                found[state] = {id.decode() for id in ids}
        return found

    def state(self, id: str) -> str | None:
        """The state that the record of `id` names."""
        raw: Any = self.client.get(self.keys.mutable(id))
        return layout.Mutable.unpack(raw).state.decode() if raw else None


def task_in(queue: ScriptedQueue, state: str, id: str = "t1") -> str:
    """Bring a task into `state`; returns its token, "" where it never ran."""
    if state == "pending":
        queue.submit(NewTask(id, delay_ms=60_000))
        return ""
    queue.submit(NewTask(id))
    if state == "queued":
        return ""
    if state == "cancelled":
        assert queue.cancel(id) == ("done", "cancelled")
        return ""
    [(_, token)] = queue.claim()
    if state == "completed":
        assert queue.complete(id, token) == "ok"
    elif state == "failed":
        assert queue.fail(id, token) == "ok"
    assert queue.state(id) == state
    return token


def _pairs(flat: Sequence[bytes]) -> Mapping[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _scores(flat: Sequence[bytes]) -> dict[str, float]:
    return {id.decode(): float(score) for id, score in _pairs(flat).items()}


def _places(flat: Sequence[bytes]) -> dict[str, tuple[int, int, int]]:
    places = {}
    for key, value in _pairs(flat).items():
        tail, served, n = value.decode().split(" ")
        places[key.decode()] = (int(tail), int(served), int(n))
    return places


def _text_of(reply: Any) -> Any:
    if isinstance(reply, list):
        return [_text_of(item) for item in reply]
    if isinstance(reply, bytes):
        try:
            return reply.decode()
        except UnicodeDecodeError:
            return reply
    return reply
