"""What transitions leave behind goes, and what is in use stays."""

from __future__ import annotations

import pytest

from callboard import clock
from callboard.maintenance.policy import Policy
from callboard.maintenance.sweeper import Sweeper, Swept, drop_runs, tidy, trim_events
from callboard.storage.connection import Connection
from callboard.storage.operation import Command
from tests.support import tasks


def sweeper() -> Sweeper:
    return Sweeper(lambda _queue: Policy())


def test_a_clean_queue_loses_nothing(connection: Connection) -> None:
    tasks.finish(connection, "q", tasks.run(connection, "q", 3))
    tasks.accept(connection, "q", 3, fairness_key="k")
    names = connection.keys.queue("q")
    before = connection.execute(Command("HGETALL", names.fair(5)))
    assert sweeper().run_once(connection, "q") == Swept()
    assert connection.execute(Command("HGETALL", names.fair(5))) == before != {}


def test_old_events_go(connection: Connection) -> None:
    names = connection.keys.queue("q")
    for number in range(500):  # trimming goes by whole nodes of 100 entries
        connection.execute(Command("XADD", names.events, f"{1000 + number}-0", "e", "x"))
    tasks.accept(connection, "q")
    assert connection.run(trim_events(connection.keys, "q", clock.now_ms() - 60_000)) == 500
    assert connection.execute(Command("XLEN", names.events)) == 1


def test_old_run_figures_go(connection: Connection) -> None:
    runs = connection.keys.queue("q").runs
    tasks.finish(connection, "q", tasks.run(connection, "q"))
    fresh = connection.execute(Command("HLEN", runs))
    for minute in range(1, 300):
        connection.execute(Command("HSET", runs, f"{minute}:n", 1, f"{minute}:ms", 1, f"{minute}:r3", 1))
    assert connection.run(drop_runs(connection.keys, "q", 300)) == 299 * 3
    assert connection.execute(Command("HLEN", runs)) == fresh


def test_fairness_keys_without_a_place_go_and_the_others_stay(connection: Connection) -> None:
    names = connection.keys.queue("q")
    tasks.accept(connection, "q", fairness_key="waiting")
    connection.execute(Command("HSET", names.meta, "v5", 5000))
    for number in range(300):
        connection.execute(Command("HSET", names.fair(5), f"idle{number}", f"4000 {4000 + number % 2} 0"))
    connection.execute(Command("HSET", names.fair(5), "ahead", "6000 6000 0"))
    assert connection.run(tidy(connection.keys, "q", 5)) == 300
    left = connection.execute(Command("HKEYS", names.fair(5)))
    assert sorted(left) == [b"ahead", b"waiting"]


def test_claims_of_the_dead_go_after_a_while(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks.run(connection, "q", worker="dead")
    tasks.run(connection, "q", worker="alive")
    connection.execute(Command("SET", connection.keys.worker("alive"), "{}"))
    claims = connection.keys.queue("q").claims
    made = sweeper()
    assert made.run_once(connection, "q").claims == 0, "it may have claimed before it showed itself"
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now + 61)
    assert made.run_once(connection, "q").claims == 1
    assert connection.execute(Command("HKEYS", claims)) == [b"alive"]
