"""Fair queueing on the real scripts, with the numbers that made the plain formula wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from callboard.storage.connection import Connection
from tests.support.scripted_queue import LEASE_MS, NewTask, ScriptedQueue

K = 2**49


class Lane(ScriptedQueue):
    """A queue whose tasks have a fairness key and nothing else to tell."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.count = 0
        self.keys_of: dict[str, str] = {}

    def add(self, key: str, n: int = 1, *, priority: int = 5, weight: float = 1) -> list[str]:
        """Submit `n` tasks of `key`; their ids are random to Redis's order of ties, as ULIDs' are to keys."""
        tasks = []
        for _ in range(n):
            self.count += 1
            id = f"{(self.count * 7919) % 100_003:06}x{self.count}"
            self.keys_of[id] = key
            tasks.append(NewTask(id, key=key, priority=priority, weight=weight))
        for start in range(0, n, 100):
            self.submit(*tasks[start : start + 100])
        return [task.id for task in tasks]

    def serve(self, n: int = 1) -> list[str]:
        """The keys of the next `n` tasks, claimed and completed one after another."""
        served = []
        for _ in range(n):
            [(id, token)] = self.claim()
            assert self.complete(id, token) == "ok"
            served.append(self.keys_of[id])
        return served

    def waits_behind(self, id: str) -> int:
        """How many are served before `id`."""
        return self.look().ordered("queued").index(id)


@pytest.fixture
def lane(redis_url: str, namespace: str) -> Iterator[Lane]:
    connection = Connection(redis_url, namespace=namespace)
    yield Lane(connection)
    connection.close()


def test_who_cancels_a_backlog_waits_behind_two(lane: Lane) -> None:
    backlog = lane.add("canceller", 1000)
    lane.add("b", 300)
    lane.add("c", 300)
    for id in backlog:
        assert lane.cancel(id) == ("done", "cancelled")
    [id] = lane.add("canceller")
    assert lane.waits_behind(id) <= 2


def test_who_cancels_a_backlog_that_was_served_in_part_waits_behind_two(lane: Lane) -> None:
    backlog = lane.add("canceller", 1000)
    lane.add("b", 300)
    lane.add("c", 300)
    lane.serve(90)
    waiting = lane.look().sets["queued"]
    for id in backlog:
        if id in waiting:
            lane.cancel(id)
    [id] = lane.add("canceller")
    assert lane.waits_behind(id) <= 2


def test_who_purges_a_backlog_is_a_newcomer_afterwards(lane: Lane) -> None:
    lane.add("a", 300)
    lane.serve(100)
    cursor = ""
    for _ in range(3):
        _, _, cursor = lane.call("purge", "queued", 200, cursor)
    assert lane.look().sets["queued"] == {}
    lane.add("b", 50)
    [id] = lane.add("a")
    assert lane.waits_behind(id) <= 1


def test_weights_of_three_to_one_give_150_to_50(lane: Lane) -> None:
    lane.add("light", 300, weight=1)
    lane.add("heavy", 300, weight=3)
    shares = Counter(lane.serve(200))
    assert shares["heavy"] == pytest.approx(150, abs=1)
    assert shares["light"] == pytest.approx(50, abs=1)


def test_a_trickling_key_gets_its_half_beside_a_backlog(lane: Lane) -> None:
    lane.add("backlog", 450)
    lane.add("trickle")
    shares: Counter[str] = Counter()
    for _ in range(400):
        [key] = lane.serve()
        shares[key] += 1
        if key == "trickle":
            lane.add("trickle")
    assert shares["trickle"] == pytest.approx(200, abs=1)


def test_an_urgent_task_waits_for_no_backlog_of_its_own_key(lane: Lane) -> None:
    lane.add("a", 1000)
    lane.serve(50)
    lane.add("b", 300, priority=0)
    lane.add("c", 300, priority=0)
    [urgent] = lane.add("a", priority=0)
    assert lane.waits_behind(urgent) <= 2


def test_a_released_task_with_an_old_tag_opens_no_gap_for_a_newcomer(lane: Lane) -> None:
    lane.add("a", 400)
    lane.add("b", 400)
    [(old, token)] = lane.claim()
    lane.serve(300)
    assert lane.settle("release", old, token, "shutdown") == "ok"
    [(again, token)] = lane.claim()
    assert again == old
    assert lane.complete(again, token) == "ok"
    lane.add("newcomer", 200)
    shares = Counter(lane.serve(200))
    assert shares["newcomer"] == pytest.approx(67, abs=2)


def test_who_fails_most_gets_no_more_than_its_share(lane: Lane) -> None:
    lane.add("fails", 200)
    lane.add("works", 200)
    starts: Counter[str] = Counter()
    for _ in range(200):
        [(id, token)] = lane.claim()
        key = lane.keys_of[id]
        starts[key] += 1
        if key == "fails":
            assert lane.retry_later(id, token) == "ok"
        else:
            assert lane.complete(id, token) == "ok"
    assert starts["fails"] == pytest.approx(100, abs=1)


def test_a_retry_by_hand_enters_anew(lane: Lane) -> None:
    [first] = lane.add("a")
    lane.add("a", 20)
    lane.add("b", 20)
    [(id, token)] = [claimed for claimed in lane.claim(2) if claimed[0] == first]
    assert lane.fail(id, token) == "ok"
    lane.serve(10)
    assert lane.retry(first) == ("ok", "queued")
    queued = lane.look().ordered("queued")
    mine = [id for id in queued if lane.keys_of[id] == "a"]
    assert mine[-1] == first


@pytest.mark.parametrize("how", ["release", "rescue"])
def test_who_was_interrupted_keeps_its_place(lane: Lane, how: str) -> None:
    lane.add("a", 50)
    lane.add("b", 50)
    [(id, token)] = lane.claim()
    before = lane.look().records[id].mutable.score
    lane.serve(20)
    if how == "release":
        assert lane.settle("release", id, token, "shutdown") == "ok"
    else:
        lane.clock += LEASE_MS
        assert lane.rescue((id, token, True)) == ["queued"]
    assert lane.look().records[id].mutable.score == before
    assert lane.waits_behind(id) == 0


def test_the_share_of_an_interrupted_key_is_not_counted_twice(lane: Lane) -> None:
    lane.add("released", 200)
    lane.add("other", 200)
    starts: Counter[str] = Counter()
    for _ in range(200):
        [(id, token)] = lane.claim()
        starts[lane.keys_of[id]] += 1
        if lane.keys_of[id] == "released":  # every one of its tasks is interrupted once
            assert lane.settle("release", id, token, "shutdown") == "ok"
            [(again, token)] = lane.claim()
            assert again == id
        assert lane.complete(id, token) == "ok"
    assert starts["released"] == pytest.approx(100, abs=1)


def test_delayed_tasks_take_their_tag_when_they_are_due(lane: Lane) -> None:
    lane.submit(*(NewTask(f"late{n:03}", key="a", delay_ms=1000) for n in range(100)))
    lane.add("b", 50)
    [id] = lane.add("a")
    assert lane.waits_behind(id) <= 1
    lane.serve(51)
    lane.clock += 1000
    lane.call("promote")
    assert lane.look().sets["queued"]["late000"] >= 5 * K


def test_a_priority_that_ran_empty_keeps_its_clock_and_forgets_its_keys(lane: Lane) -> None:
    lane.add("a", 3)
    lane.serve(3)
    found = lane.look()
    assert found.fair == {}
    assert int(found.meta["v5"]) == 3000
    [id] = lane.add("b")
    assert lane.look().sets["queued"][id] == 5 * K + 3000


def test_strict_priority_comes_before_fairness(lane: Lane) -> None:
    for priority in (9, 5, 0):
        lane.add(f"p{priority}", 5, priority=priority)
    assert lane.serve(15) == ["p0"] * 5 + ["p5"] * 5 + ["p9"] * 5


@pytest.mark.parametrize("weight", [0, -1, 1e-9, 1e9, float("nan")])
def test_no_weight_wedges_a_priority(lane: Lane, weight: float) -> None:
    lane.add("odd", 5, weight=weight)
    lane.add("even", 5)
    served = lane.serve(10)
    assert Counter(served) == {"odd": 5, "even": 5}


@pytest.mark.parametrize("priority", [-3, 12])
def test_a_priority_out_of_range_is_the_nearest_one(lane: Lane, priority: int) -> None:
    [id] = lane.add("a", priority=priority)
    assert lane.look().records[id].mutable.priority == max(0, min(9, priority))
    assert lane.serve(1) == ["a"]


def test_scores_stay_exact_at_the_highest_priority_after_a_long_life(lane: Lane) -> None:
    long_life = 2**49 - 10_000
    lane.client.hset(lane.keys.meta, mapping={"v9": long_life, "s9": long_life})
    ids = lane.add("a", 5, priority=9)
    scores = lane.look().sets["queued"]
    assert [scores[id] - 9 * K for id in ids] == [long_life + 1000 * n for n in range(5)]


def test_keys_that_had_their_turn_are_tidied_away_under_a_lasting_backlog(lane: Lane) -> None:
    for n in range(150):
        lane.add(f"user-{n}")
    lane.add("backlog", 200)
    lane.serve(200)
    assert len(lane.look().fair[5]) > 100
    cursor, dropped = "0", 0
    for _ in range(10):
        cursor, gone = lane.call("tidy", 5, cursor)
        dropped += gone
        if cursor == "0":
            break
    assert dropped > 100
    assert lane.look().fair[5]["backlog"][2] == 150
