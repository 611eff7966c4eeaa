"""A server at its maxmemory: submits are refused, and everything that ends or frees something still works."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from callboard.errors import StoreFull
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.submit import Submission, SubmitLimits, submit
from tests.support.scripted_queue import LEASE_MS, NewTask, ScriptedQueue, line, operation


class FullQueue(ScriptedQueue):
    """A queue on a server of its own, which `fill` brings to its maxmemory."""

    def fill(self) -> None:
        """Write until a plain write is refused, in ever smaller pieces."""
        for size in (100_000, 1_000, 100, 30, 10, 3, 1):
            try:
                while True:
                    self.client.rpush("filler", b"x" * size)
            except redis.exceptions.OutOfMemoryError:
                pass
        assert self.is_full()

    def is_full(self) -> bool:
        try:
            self.client.set("one more", b"x")
        except redis.exceptions.OutOfMemoryError:
            return True
        return False

    def call(self, script: str, *args: object) -> object:
        if self.tight:
            self.fill()  # also what the call before has freed
        return super().call(script, *args)

    tight = False


@pytest.fixture
def queue(start_server: Callable[..., EmbeddedServer], namespace: str) -> Iterator[FullQueue]:
    server = start_server(config={"maxmemory": "16mb", "maxmemory-policy": "noeviction"})
    connection = Connection(server.url, namespace=namespace)
    yield FullQueue(connection)
    connection.close()


def full_with(queue: FullQueue, tasks: int) -> list[tuple[str, str]]:
    """Claim `tasks` tasks, then let the server run full."""
    queue.submit(*(NewTask(f"t{n}", max_attempts=-1) for n in range(tasks)))
    claimed = queue.claim(tasks)
    assert len(claimed) == tasks
    queue.fill()
    return claimed


def test_a_submit_is_refused_whole_and_a_resend_of_an_accepted_one_answered(queue: FullQueue) -> None:
    queue.submit(NewTask("t1"))
    queue.fill()
    before = queue.look()
    with pytest.raises(StoreFull):
        queue.submit(NewTask("t2"), NewTask("t3"))
    assert queue.look().durable == before.durable
    queue.clock += 1000
    assert queue.submit(NewTask("t1")) == [("t1", "queued")]


def test_the_submit_door_refuses_before_the_server_does(queue: FullQueue, namespace: str) -> None:
    queue.fill()
    connection = Connection(queue.connection.address.url, namespace=namespace)
    submission = Submission(name="a.b", queue="q")
    [answer] = connection.run(submit(connection.keys, [submission], SubmitLimits(memory_share=0.8)))
    assert isinstance(answer.problem, StoreFull)
    connection.close()


ENDINGS: list[tuple[str, str, tuple[object, ...]]] = [
    ("completed", "completed", (b"r" * 1000, [b"a follower"])),
    ("failed", "failed", ("failed", "exhausted", b"e" * 1000, [b"a follower"])),
    ("retry", "pending", ("failed", b"e" * 1000, 1000, b"")),
    ("snooze", "pending", ("busy", 1000)),
    ("release", "queued", ("shutdown",)),
    ("unknown", "pending", ()),
    ("cancelled", "cancelled", ("cancelled", b"{}")),
]


@pytest.mark.parametrize(("kind", "state", "rest"), ENDINGS, ids=[kind for kind, _, _ in ENDINGS])
def test_what_runs_can_end(queue: FullQueue, kind: str, state: str, rest: tuple[object, ...]) -> None:
    [(id, token)] = full_with(queue, 1)
    queue.clock += 1000
    told = {"progress": (b"{}", 1), "lines": [line("the end")]}
    ending = operation(kind, id, token, *rest, **told)  # type: ignore[arg-type]
    assert queue.turn(0, ending).answers == ["ok"]
    assert queue.state(id) == state
    queue.fill()
    queue.clock += 1000
    assert queue.turn(0, ending).answers == ["already"]
    assert queue.turn(0, operation(kind, id, "1.forged-1", *rest)).answers == ["lost"]


def test_what_is_queued_can_be_claimed_and_the_claim_repeated(queue: FullQueue) -> None:
    queue.submit(NewTask("t1"), NewTask("t2", expires_in_ms=500), NewTask("t3", delay_ms=1000), NewTask("t4"))
    queue.fill()
    queue.clock += 1000
    first = queue.turn(2, nonce="n")
    assert [id for id, _ in first.claimed] == ["t1"]
    queue.fill()
    queue.clock += 1000
    assert queue.turn(2, nonce="n").claimed == first.claimed
    queue.fill()
    assert {id for id, _ in queue.claim(4)} == {"t3", "t4"}
    assert queue.claim(4) == []


def test_operators_and_loops_can_do_their_work(queue: FullQueue) -> None:
    queue.submit(NewTask("waits"), NewTask("late", delay_ms=60_000), NewTask("due", delay_ms=1000))
    queue.submit(*(NewTask(f"t{n}", priority=0) for n in range(8)))
    claimed = dict(queue.claim(8))
    for n in range(4):
        assert (queue.complete if n else queue.fail)(f"t{n}", claimed[f"t{n}"]) == "ok"
    queue.call("lease", "promoter", "a", 5000)
    queue.tight = True
    queue.clock += 1000
    assert queue.renew(("t4", claimed["t4"]), ("t4", "1.x-1")) == ["ok", "lost"]
    assert queue.renew(("t4", "1.x-1")) == ["lost"]
    assert queue.cancel("waits") == ("done", "cancelled")
    assert queue.cancel("late") == ("done", "cancelled")
    assert queue.cancel("t5") == ("asked", "running")
    assert queue.retry("t0") == ("ok", "queued")
    assert queue.delete("t1") == ("ok", "completed")
    assert queue.call("promote") == [1, -1]
    queue.clock += LEASE_MS - 1000
    assert queue.rescue(("t4", claimed["t4"], True)) == [""]
    assert queue.rescue(("t5", claimed["t5"], True), ("t6", claimed["t6"], False)) == ["cancelled", "queued"]
    assert queue.call("purge", "queued", 1, "")[0] == 1  # type: ignore[index]
    assert queue.call("prune", "completed", -1, 1, 10) == [1, 1]
    assert queue.call("prune", "cancelled", 0, -1, 10) == [3, 0]
    assert queue.call("pause", 1) == 1
    assert queue.call("pause", 0) == 1
    for loop, holder in [("promoter", "a"), ("promoter", "b"), ("rescuer", "a")]:
        assert queue.call("lease", loop, holder, 5000) == 1
        queue.clock += 5000
    assert queue.call("lease", "rescuer", "a", 0) == 0
    assert queue.call("lease", "rescuer", "b", 5000) == 1, "nobody held it"
    assert queue.call("forget", "w1") == 1
    assert queue.call("delivered", "nothing") == 0
    assert queue.call("tidy", 5, "0") == ["0", 0]
    assert queue.call("strip", 0, 10) == 1


def test_a_record_that_cannot_be_decoded_fails_here_too(queue: FullQueue) -> None:
    queue.submit(NewTask("bad"), NewTask("worse", delay_ms=1000), NewTask("good"))
    for id in ("bad", "worse"):
        queue.client.set(queue.keys.mutable(id), b"\x01\xc1")
    queue.fill()
    queue.clock += 1000
    assert [id for id, _ in queue.claim(4)] == ["good"]
    assert queue.look_at_sets()["failed"] == {"bad", "worse"}


def test_above_nine_tenths_no_events_and_no_log_lines_are_written(queue: FullQueue, namespace: str) -> None:
    [(id, token)] = full_with(queue, 1)
    connection = Connection(queue.connection.address.url, namespace=namespace)  # it asks how full it is
    late = FullQueue(connection)
    before = late.client.xlen(late.keys.events)
    assert late.turn(0, operation("completed", id, token, b"{}", [], lines=[line("x")])).answers == ["ok"]
    found = late.look().records[id]
    assert (found.log, found.mutable.log_lines) == (None, 1)
    assert late.client.xlen(late.keys.events) == before
    connection.close()


def test_a_full_server_is_worked_empty_and_takes_tasks_again(queue: FullQueue) -> None:
    body = b"\x01" + b"x" * 20_000
    n = 0
    try:
        while n < 2_000:
            queue.submit(NewTask(f"t{n:04}", body=body))
            n += 1
    except StoreFull:
        pass
    assert 300 < n < 2_000
    done = 0
    while claimed := queue.claim(16):
        endings = [operation("completed", id, token, b"{}", []) for id, token in claimed]
        assert queue.turn(0, *endings).answers == ["ok"] * len(claimed)
        done += len(claimed)
        queue.call("prune", "completed", -1, 0, 200)
    assert done == n
    assert queue.look().sets["all"] == {}
    assert queue.submit(NewTask("again", body=body)) == [("again", "queued")]
