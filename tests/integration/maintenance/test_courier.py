"""The outbox is delivered at least once, in order, and one bad item holds up nobody."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from callboard.broker import outbox
from callboard.errors import StoreFull, StoreUnavailable
from callboard.maintenance.courier import STEP, Courier, Delivered, read_outbox
from callboard.maintenance.loops import Loops
from callboard.settings import load
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation, Pressure
from callboard.submit import Submission
from tests.support import tasks
from tests.support.waiting import wait_until


class Post:
    """A receiver that notes what comes, and fails for the bodies that it was told to."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.faults: dict[bytes, Exception] = {}

    def deliver(self, keys: Keys, body: bytes) -> Operation[None]:
        yield Command("PING")
        if body in self.faults:
            raise self.faults[body]
        self.came.append(body)


@pytest.fixture
def post() -> Post:
    return Post()


def put(connection: Connection, *bodies: bytes) -> None:
    tasks.finish(connection, "q", tasks.run(connection, "q"), followers=bodies)


def waiting(connection: Connection) -> int:
    count: int = connection.execute(Command("ZCARD", connection.keys.queue("q").outbox))
    return count


def test_an_empty_outbox_costs_nothing(post: Post, connection: Connection) -> None:
    assert Courier(post.deliver).run_once(connection, "q") == Delivered()


def test_items_arrive_oldest_first_and_leave(post: Post, connection: Connection) -> None:
    put(connection, b"1", b"2")
    put(connection, b"3")
    assert Courier(post.deliver).run_once(connection, "q") == Delivered(3, 0)
    assert sorted(post.came[:2]) == [b"1", b"2"]
    assert post.came[2] == b"3"
    assert waiting(connection) == 0
    leftovers = connection.execute(Command("KEYS", connection.keys.queue("q").outbox_body("*")))
    assert leftovers == []


def test_a_step_is_bounded_and_goes_on(post: Post, connection: Connection) -> None:
    put(connection, *[b"%d" % number for number in range(STEP + 3)])
    courier = Courier(post.deliver)
    first = courier.run_once(connection, "q")
    assert first.delivered == STEP
    assert first.again_seconds == 0
    assert courier.run_once(connection, "q") == Delivered(3, 0)


def test_big_bodies_come_a_mebibyte_at_a_time(post: Post, connection: Connection) -> None:
    for letter in (b"a", b"b", b"c", b"d"):
        put(connection, letter * 400_000)
    items, _ = connection.run(read_outbox(connection.keys, "q"))
    assert len(items) == 2


def test_one_bad_item_backs_off_and_holds_up_nobody(post: Post, connection: Connection) -> None:
    put(connection, b"bad")
    put(connection, b"good")
    post.faults[b"bad"] = ValueError("no such target")
    courier = Courier(post.deliver)
    assert courier.run_once(connection, "q") == Delivered(1, 1)
    assert post.came == [b"good"]
    assert waiting(connection) == 1
    assert courier.run_once(connection, "q") == Delivered(), "not before its pause is over"
    post.faults.clear()
    # Another process, which knows nothing of the failure, keeps to the pause too and delivers after it.
    other = Courier(post.deliver)
    wait_until(lambda: other.run_once(connection, "q").delivered == 1, description="the second try")
    assert post.came == [b"good", b"bad"]


def test_an_outage_is_no_failure_of_an_item(post: Post, connection: Connection) -> None:
    put(connection, b"1")
    put(connection, b"2")
    post.faults[b"2"] = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        Courier(post.deliver).run_once(connection, "q")
    assert post.came == [b"1"]
    assert waiting(connection) == 1, "what arrived before the outage has left"
    post.faults.clear()
    assert Courier(post.deliver).run_once(connection, "q") == Delivered(1, 0)


def test_a_delivery_that_is_repeated_submits_once(connection: Connection) -> None:
    follower = Submission(name="next", queue="q2", task_id="q2_01aaaaaaaaaaaaaaaaaaaaaaaa")
    put(connection, outbox.pack(follower))
    items, _ = connection.run(read_outbox(connection.keys, "q"))
    [(_, body)] = items
    assert body is not None
    # The process died between the delivery and the note of it.
    connection.run(outbox.deliver(connection.keys, body))
    assert Courier(outbox.deliver).run_once(connection, "q") == Delivered(1, 0)
    assert tasks.size(connection, "q2", "queued") == 1
    assert waiting(connection) == 0


@pytest.mark.parametrize(("percent", "arrives"), [(30, False), (90, True)])
def test_follow_ups_heed_the_mark_of_the_settings(
    start_server: Callable[..., EmbeddedServer], namespace: str, percent: int, arrives: bool
) -> None:
    server = start_server(config={"maxmemory": "30mb", "maxmemory-policy": "noeviction"})
    connection = Connection(server.url, namespace=namespace)
    put(connection, outbox.pack(Submission(name="next", queue="q2", task_id="q2_01aaaaaaaaaaaaaaaaaaaaaaaa")))
    for number in range(15):
        connection.execute(Command("SET", f"ballast{number}", b"x" * 1_000_000))
    # Above the first mark, below the second; a full queue is no reason: the task before it was accepted.
    tasks.accept(connection, "q2")
    marks = {"MEMORY_SUBMIT_PERCENT": "20", "MEMORY_FOLLOWUP_PERCENT": str(percent), "QUEUE_MAX_DEPTH": "1"}
    known = load({f"CALLBOARD_{name}": value for name, value in marks.items()})
    wait_until(lambda: 0.3 < connection.run(pressure(connection)) < 0.9, 30, "half full")
    result = Courier(outbox.delivering(known)).run_once(connection, "q")
    assert result == (Delivered(1, 0) if arrives else Delivered(0, 1))
    assert waiting(connection) == (0 if arrives else 1)
    connection.close()


def pressure(connection: Connection) -> Operation[float]:
    share: float = yield Pressure(connection.keys.queue("q2").prefix)
    return share


def test_what_no_replica_has_stays_and_ends_the_step(connection: Connection) -> None:
    ids = ["q2_01aaaaaaaaaaaaaaaaaaaaaaaa", "q2_01aaaaaaaaaaaaaaaaaaaaaaab"]
    put(connection, *(outbox.pack(Submission(name="next", queue="q2", task_id=id)) for id in ids))
    courier = Courier(outbox.delivering(load({"CALLBOARD_DURABILITY": "replicated"})))
    assert courier.run_once(connection, "q") == Delivered(0, 1)
    assert tasks.size(connection, "q2", "queued") == 1
    assert waiting(connection) == 2
    # Its turn comes again when there is a replica, or when nobody asks for one.
    calm = Courier(outbox.deliver)
    wait_until(lambda: calm.run_once(connection, "q").failed == waiting(connection), 30, "both delivered")
    assert tasks.size(connection, "q2", "queued") == 2


def test_an_item_whose_body_has_gone_just_leaves(post: Post, connection: Connection) -> None:
    put(connection, b"1")
    [(member, _)], _ = connection.run(read_outbox(connection.keys, "q"))
    connection.execute(Command("DEL", connection.keys.queue("q").outbox_body(member)))
    assert Courier(post.deliver).run_once(connection, "q") == Delivered(1, 0)
    assert post.came == []


def test_at_maxmemory_an_item_waits_and_is_not_lost(
    post: Post, start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    server = start_server()
    connection = Connection(server.url, namespace=namespace)
    put(connection, b"1")
    post.faults[b"1"] = StoreFull("full")
    connection.execute(Command("CONFIG", "SET", "maxmemory", "1mb"))
    assert Courier(post.deliver).run_once(connection, "q") == Delivered(0, 1)
    connection.execute(Command("CONFIG", "SET", "maxmemory", "0"))
    post.faults.clear()
    courier = Courier(post.deliver)
    wait_until(lambda: courier.run_once(connection, "q").delivered == 1, description="the delivery")
    connection.close()


def test_a_nudge_delivers_without_the_lease(post: Post, connection: Connection) -> None:
    first = Loops(connection, "h1", queues=lambda: ["q"])
    first.start()
    names = connection.keys.queue("q")
    wait_until(
        lambda: connection.execute(Command("ZRANGE", names.loops, 0, -1)) == [b"maintenance h1"],
        description="the lease to be taken",
    )
    second = Loops(connection, "h2", queues=lambda: ["q"], deliver=post.deliver)
    second.start()
    try:
        put(connection, b"1")
        second.nudge("q")
        wait_until(partial(bool, post.came), timeout=20, description="the delivery")
        wait_until(lambda: post.came == [b"1"], timeout=20, description="the delivery")
    finally:
        first.stop()
        second.stop()
