"""The state machine of the stateful test: scripts of a queue in random order, some sent twice, some replies
lost, under a clock that steps both ways; held against a model after each step, and drained at the end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from callboard.broker.reweigh import reweigh
from callboard.storage.address import Client
from callboard.storage.connection import Connection
from tests.support.engine_check import check
from tests.support.engine_draws import (
    KINDS,
    WORKERS,
    Drawing,
    delays,
    deliveries,
    having,
    plain_tasks,
    steps,
    verdicts,
)
from tests.support.engine_model import Engine
from tests.support.scripted_queue import LEASE_MS, STATES, TERMINAL, NewTask, ScriptedQueue, Turn, line, pack
from tests.support.task_model import Op

LOSSES = 3
#: What may stay in a queue that has no task any more.
RESIDUE = ("meta", "events", "claims", "runs", "wake", "clock")


def only(machine: type[EngineMachine], *rules: str) -> type[EngineMachine]:
    """The machine with these rules alone: long runs in one corner."""
    others = {
        name: value.hypothesis_stateful_rule.function
        for name, value in vars(EngineMachine).items()
        if hasattr(value, "hypothesis_stateful_rule") and name not in rules
    }
    return type("Only", (machine,), others)


class EngineMachine(Drawing):
    """One queue and its model. Rules draw what they act on from what exists."""

    client: ClassVar[Client]
    url: ClassVar[str]

    @initialize(tasks=st.lists(plain_tasks, min_size=1, max_size=6))
    def begin(self, tasks: list[NewTask]) -> None:
        self.namespace = f"m{uuid.uuid4().hex[:12]}"
        connection = Connection(self.url, namespace=self.namespace, events_keep=1000, client=self.client)
        self.queue = ScriptedQueue(connection)
        self.model = Engine()
        self.sent: list[NewTask] = []
        self.tokens: list[tuple[str, str]] = []
        self.said: list[Op] = []
        self.turns: list[tuple[str, str, int, list[Op]]] = []
        self.submit(tasks, 0, "once")

    # -- what a call is

    def exchange(
        self,
        call: Callable[[], Any],
        predict: Callable[[], Any],
        delivery: str = "once",
        *,
        again: bool = True,
    ) -> Any:
        """Send a script once, or twice as after a lost reply; `again`: the second must change nothing."""
        expected = predict()
        reply = call()
        assert reply == expected
        if delivery == "twice":
            before = self.queue.look().durable if again else None
            expected = predict()
            reply = call()
            assert reply == expected, "the reply to the call that was sent twice"
            assert before is None or self.queue.look().durable == before, "a resend had an effect"
        return reply

    # -- the rules

    @rule(
        tasks=st.lists(plain_tasks, min_size=1, max_size=3),
        depth=st.sampled_from((0, 0, 0, 4)),
        delivery=deliveries,
    )
    def submit(self, tasks: list[NewTask], depth: int, delivery: str) -> None:
        for task in tasks:
            task.id = f"t{len(self.sent):03}"
            self.sent.append(task)
        self.send(tasks, depth, delivery)

    @rule(data=st.data(), delivery=deliveries)
    def submit_late_resend(self, data: st.DataObject, delivery: str) -> None:
        if self.sent:
            self.send([data.draw(st.sampled_from(self.sent))], 0, delivery)

    @rule(task=plain_tasks, id=st.sampled_from(("f.1", "f.2")), nonce=st.integers(0, 5), delivery=deliveries)
    def enqueue_foreign(self, task: NewTask, id: str, nonce: int, delivery: str) -> None:
        task.id, task.nonce = id, f"e{nonce}"
        self.send([task], 0, delivery)

    def send(self, tasks: list[NewTask], depth: int, delivery: str) -> None:
        self.exchange(
            lambda: self.queue.submit(*tasks, depth=depth),
            lambda: self.model.submit(tasks, depth),
            delivery,
            again=not depth,  # what was refused for the depth may fit by then
        )

    @rule(data=st.data(), worker=st.sampled_from(WORKERS), want=st.integers(0, 4), delivery=deliveries)
    def turn(self, data: st.DataObject, worker: str, want: int, delivery: str) -> None:
        ops = [self.some_op(data) for _ in range(data.draw(st.integers(0, 3)))]
        if self.said:
            again = data.draw(st.sampled_from((False, True)))
            if again:  # the reply was lost, and much has happened since
                ops.append(data.draw(st.sampled_from(self.said)))
        self.take_turn(worker, self.queue.nonce(), want, ops, delivery)

    @having("queued", "pending")
    @rule(worker=st.sampled_from(WORKERS), want=st.integers(1, 4))
    def claim(self, worker: str, want: int) -> None:
        self.take_turn(worker, self.queue.nonce(), want, [], "once")

    @having("running")
    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def settle(self, data: st.DataObject, kind: str) -> None:
        running = [(task.id, task.token) for task in self.model.within("running")]
        op = Op(kind, *data.draw(st.sampled_from(running)), data.draw(delays))
        self.take_turn("w1", self.queue.nonce(), 0, [op], "once")

    @precondition(lambda self: bool(self.turns))
    @rule(data=st.data())
    def turn_late_resend(self, data: st.DataObject) -> None:
        self.take_turn(*data.draw(st.sampled_from(self.turns[-8:])), "once")

    def take_turn(self, worker: str, nonce: str, want: int, ops: list[Op], delivery: str) -> Turn:
        sent = (worker, nonce, want, ops)
        if sent not in self.turns:
            self.turns.append(sent)
            if want:
                self.client.lpop(self.queue.keys.wake)  # an idle consumer has been told, or looks by itself
        packed = [op.pack() for op in ops]
        turn: Turn = self.exchange(
            lambda: self.queue.turn(want, *packed, worker=worker, nonce=nonce),
            lambda: self.model.turn(worker, nonce, want, LEASE_MS, ops),
            delivery,
            again=False,  # a claim that gave nothing may give something now; the model knows
        )
        self.said += [op for op, answer in zip(ops, turn.answers, strict=True) if answer == "ok"]
        self.tokens += [claimed for claimed in turn.claimed if claimed not in self.tokens]
        return turn

    @having("running")
    @rule(data=st.data(), count=st.integers(1, 3), delivery=deliveries)
    def renew(self, data: st.DataObject, count: int, delivery: str) -> None:
        pairs = [self.some_token(data) for _ in range(count)]
        self.exchange(
            lambda: self.queue.renew(*pairs), lambda: self.model.renew(LEASE_MS, pairs), delivery
        )  # fmt: skip

    @having("running")
    @rule(
        data=st.data(),
        progress=st.sampled_from((b"", b'{"current":1}', b'{"current":2}')),
        seq=st.integers(1, 4),
        first=st.integers(1, 4),
        lines=st.lists(st.sampled_from(("reading", "writing")), max_size=3),
        delivery=deliveries,
    )
    def note(
        self, data: st.DataObject, progress: bytes, seq: int, first: int, lines: list[str], delivery: str
    ) -> None:
        op = Op("note", *self.some_token(data), 0, (), progress, seq, first, tuple(lines))
        item = pack([op.id, op.token, progress, seq, first, [line(text) for text in lines]])
        self.exchange(lambda: self.queue.call("note", item), lambda: [self.model.note(op)], delivery)

    @rule(data=st.data(), terminate=st.booleans(), delivery=deliveries)
    def cancel(self, data: st.DataObject, terminate: bool, delivery: str) -> None:
        id = self.some_id(data, "pending", "queued", "running")
        self.exchange(
            lambda: self.queue.cancel(id, terminate=terminate),
            lambda: self.model.cancel(id, terminate=terminate),
            delivery,
        )

    @having("queued")
    @rule(data=st.data(), keep=st.integers(80, 200))
    def an_unreadable_one_is_dropped(self, data: st.DataObject, keep: int) -> None:
        id = data.draw(st.sampled_from(self.ids("queued")))
        raw: Any = self.client.get(self.queue.keys.mutable(id))
        self.client.set(self.queue.keys.mutable(id), b"?" + raw[1:keep])
        self.model.drop_unreadable(id)
        if data.draw(st.booleans()):
            assert self.queue.cancel(id) == ("conflict", "failed")
        assert self.queue.delete(id) == ("ok", "failed")

    @having("failed", "cancelled")
    @rule(data=st.data(), attempts=st.sampled_from((1, 3, -1)), delivery=deliveries)
    def retry(self, data: st.DataObject, attempts: int, delivery: str) -> None:
        id, nonce = self.some_id(data, "failed", "cancelled"), self.queue.nonce()
        self.exchange(
            lambda: self.queue.retry(id, nonce, attempts),
            lambda: self.model.retry(id, nonce, attempts),
            delivery,
        )

    @having(*TERMINAL)
    @rule(data=st.data(), delivery=deliveries)
    def delete(self, data: st.DataObject, delivery: str) -> None:
        id = self.some_id(data, *TERMINAL)
        self.exchange(lambda: self.queue.delete(id), lambda: self.model.delete(id), delivery)

    @rule(
        state=st.sampled_from(sorted(set(STATES) - {"running"})),
        limit=st.integers(1, 3),
        goes=st.integers(1, 3),
    )
    def purge(self, state: str, limit: int, goes: int) -> None:
        cursor, before, skip = "", self.model.now, 0
        for _ in range(goes):
            dropped, looked, cursor = self.queue.call("purge", state, limit, cursor)
            expected = self.model.purge(state, limit, before, skip)
            skip = expected[2]
            assert (dropped, looked, cursor) == (*expected[:2], f"{before}:{skip}")

    @having("queued")
    @rule(
        key=st.sampled_from("abc"),
        weight=st.sampled_from((1, 3, 0.5)),
        look=st.integers(1, 4),
        step=st.integers(1, 3),
    )
    def reweigh(self, key: str, weight: float, look: int, step: int) -> None:
        keys = self.queue.connection.keys
        changed = self.queue.drive(reweigh(keys, self.queue.keys.name, key, weight, look=look, step=step))
        assert changed == self.model.reweigh(key, weight)

    @rule(paused=st.sampled_from((True, False, False)), delivery=deliveries)
    def pause(self, paused: bool, delivery: str) -> None:
        self.exchange(
            lambda: self.queue.call("pause", int(paused)), lambda: self.model.pause(paused=paused), delivery
        )  # fmt: skip

    @rule(step=steps)
    def time_passes(self, step: int) -> None:
        self.queue.clock += step
        self.model.clock += step

    @having("pending")
    @rule()
    def the_next_is_due(self) -> None:
        self.time_passes(max(0, self.model.within("pending")[0].due - self.model.now))
        self.promote("once")

    @having("running")
    @rule(verdict=verdicts, delivery=deliveries)
    def a_worker_is_silent(self, verdict: str, delivery: str) -> None:
        self.time_passes(max(0, self.model.within("running")[0].lease - self.model.now))
        self.rescue_all(delivery, verdict)

    @having("pending")
    @rule(delivery=deliveries)
    def promote(self, delivery: str) -> None:
        self.exchange(lambda: tuple(self.queue.call("promote")), self.model.promote, delivery, again=False)

    @rule(data=st.data(), verdict=verdicts, delivery=deliveries)
    def rescue(self, data: st.DataObject, verdict: str, delivery: str) -> None:
        late = [(task.id, task.token, verdict) for task in self.model.within("running")[:3]]
        triples = [*late, (*self.some_token(data), verdict)]
        self.exchange(
            lambda: self.queue.rescue(*triples, losses=LOSSES),
            lambda: self.model.rescue(triples, LOSSES),
            delivery,
        )

    @rule()
    def expired(self) -> None:
        late = [task for task in self.model.within("running") if task.lease <= self.model.now]
        found = [[task.id, task.token, task.worker, self.model.now - task.lease] for task in late]
        assert self.queue.call("expired", 50) == found

    @rule(
        state=st.sampled_from(TERMINAL),
        age=st.sampled_from((-1, 0, 5_000)),
        keep=st.sampled_from((-1, 0, 2)),
        limit=st.integers(1, 3),
        delivery=deliveries,
    )
    def prune(self, state: str, age: int, keep: int, limit: int, delivery: str) -> None:
        self.exchange(
            lambda: tuple(self.queue.call("prune", state, age, keep, limit)),
            lambda: self.model.prune(state, age, keep, limit),
            delivery,
            again=False,
        )

    @rule(worker=st.sampled_from(WORKERS), delivery=deliveries)
    def forget(self, worker: str, delivery: str) -> None:
        self.turns = [turn for turn in self.turns if turn[0] != worker]
        self.exchange(lambda: self.queue.call("forget", worker), lambda: self.model.forget(worker), delivery)

    @rule(data=st.data(), delivery=deliveries)
    def deliver(self, data: st.DataObject, delivery: str) -> None:
        members = data.draw(
            st.lists(st.sampled_from([*sorted(self.model.outbox), "t000:7:1"]), min_size=1, unique=True)
        )
        self.exchange(
            lambda: self.queue.call("delivered", *members), lambda: self.model.delivered(members), delivery
        )  # fmt: skip

    @rule(priority=st.sampled_from((0, 5, 9)))
    def tidy(self, priority: int) -> None:
        self.queue.call("tidy", priority, "0")

    # -- what must hold

    @invariant()
    def agrees_with_the_model(self) -> None:
        found = self.queue.look()
        stamp = int(found.meta.get("t", 0))
        assert stamp in {self.model.seen, self.model.now}
        self.model.seen = stamp
        check(self.model, found)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        try:
            self.drain()
            self.leaves_nothing_behind()
        finally:
            keys = self.keys()
            if keys:
                self.client.unlink(*keys)

    def keys(self) -> Iterable[Any]:
        return list(self.client.scan_iter(match=f"{self.namespace}:*", count=1000))

    def drain(self) -> None:
        """Nothing is stranded: whatever has happened, every task comes to an end."""
        self.pause(paused=False, delivery="once")
        rounds = 0
        while waiting := self.ids("pending", "queued", "running"):
            rounds += 1
            assert rounds <= 6 + len(self.model.tasks), f"never end: {waiting}"
            self.time_passes(max([0, *(task.due - self.model.now for task in self.model.within("pending"))]))
            self.time_passes(2 * LEASE_MS)
            self.rescue_all("once", "strike")
            turn = self.take_turn("w1", self.queue.nonce(), 16, [], "once")
            ends = [Op("completed", id, token) for id, token in turn.claimed]
            assert self.take_turn("w1", self.queue.nonce(), 0, ends, "once").answers == ["ok"] * len(ends)
            self.agrees_with_the_model()

    def rescue_all(self, delivery: str, verdict: str) -> None:
        late = [(task.id, task.token, verdict) for task in self.model.within("running")]
        self.exchange(
            lambda: self.queue.rescue(*late, losses=LOSSES),
            lambda: self.model.rescue(late, LOSSES),
            delivery,
        )

    def leaves_nothing_behind(self) -> None:
        for task in self.model.tasks.values():
            assert task.outcomes == task.replays + 1, "one outcome for each run"
        for member, body in self.model.outbox.items():
            assert self.client.get(self.queue.keys.outbox_body(member)) == body
        members = [*self.model.outbox, "nothing"]
        assert self.queue.call("delivered", *members) == self.model.delivered(members)
        for state in TERMINAL:
            self.prune(state, -1, 0, 200, "once")
        self.agrees_with_the_model()
        prefix = self.queue.keys.prefix.encode()
        left = {key.removeprefix(prefix).decode() for key in self.keys()}
        for key in (key for key in left if key.startswith(("t:", "r:"))):
            assert self.client.pttl(f"{self.queue.keys.prefix}{key}") > 0, "it goes by itself"
        strays = {key for key in left if key not in RESIDUE and not key.startswith(("t:", "r:"))}
        assert not strays, "keys that nobody will ever drop"
