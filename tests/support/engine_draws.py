"""What the stateful test draws: workers, tasks, delays, steps of the clock, deliveries, and which rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition

from tests.support.engine_model import Engine
from tests.support.scripted_queue import LEASE_MS, NewTask
from tests.support.task_model import Op

WORKERS = ("w1", "w2", "w3")
KINDS = ("completed", "failed", "retry", "snooze", "release", "unknown", "cancelled")
verdicts = st.sampled_from(["present", "strike", "attempt", "nothing"])
deliveries = st.sampled_from(("once", "once", "twice"))
delays = st.sampled_from((0, 0, 1, 500, 5_000, 3_600_000))
steps = st.sampled_from(
    (1, 20, 400, 1_000, 5_000, LEASE_MS, LEASE_MS, 60_000, 3_600_000, -1, -3_000, -5_000, -5_001, -60_000)
)
plain_tasks = st.builds(
    NewTask,
    id=st.just(""),
    key=st.sampled_from("abc"),
    weight=st.sampled_from((1, 1, 3, 0.5)),
    priority=st.sampled_from((5, 5, 0, 9)),
    delay_ms=st.sampled_from((0, 0, 0, 1, 500, 5_000)),
    expires_in_ms=st.sampled_from((0, 0, 0, 0, 400, 6_000, 3_600_000)),
    max_attempts=st.sampled_from((-1, 1, 2, 4)),
)


def having(*states: str) -> Callable[[Any], Any]:
    """A rule that needs a task in one of `states`: others would mostly be wasted."""
    return precondition(lambda self: bool(self.ids(*states)))


class Drawing(RuleBasedStateMachine):
    """What a rule may draw from what exists: a task, a token, a worker's word."""

    model: Engine
    tokens: list[tuple[str, str]]

    def ids(self, *states: str) -> list[str]:
        return sorted(task.id for task in self.model.tasks.values() if not states or task.state in states)

    def some_id(self, data: st.DataObject, *likely: str) -> str:
        """An id that is mostly in one of the likely states."""
        pools = [pool for pool in (self.ids(*likely), self.ids(), ["nobody"]) if pool]
        return data.draw(st.sampled_from(data.draw(st.sampled_from((pools[0], pools[0], *pools)))))

    def some_token(self, data: st.DataObject) -> tuple[str, str]:
        """A task and a token: mostly of a claim that holds, else one that held once, or never."""
        live = [(task.id, task.token) for task in self.model.within("running")]
        pools = [pool for pool in (live, self.tokens[-8:], [("nobody", "1.x-1")]) if pool]
        if live:
            pools.append([(live[0][0], "9.forged-1")])
        return data.draw(st.sampled_from(data.draw(st.sampled_from((pools[0], pools[0], pools[0], *pools)))))

    def some_op(self, data: st.DataObject) -> Op:
        id, token = self.some_token(data)
        kind = data.draw(st.sampled_from(KINDS))
        followers = (f"{id} {token}".encode(),) if data.draw(st.booleans()) else ()
        progress = data.draw(st.sampled_from((b"", b'{"current":9}')))
        lines = ("the last line",) if data.draw(st.booleans()) else ()
        first = self.model.tasks[id].log_seq + 1 if id in self.model.tasks else 1
        return Op(kind, id, token, data.draw(delays), followers, progress, 0, first, lines)
