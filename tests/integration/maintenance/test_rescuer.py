"""Expired leases: whose fault, what it costs, and when nobody may judge."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

import pytest

from callboard import clock
from callboard.errors import StoreUnavailable
from callboard.maintenance.fate import Fate
from callboard.maintenance.loops import Loops
from callboard.maintenance.policy import Policy
from callboard.maintenance.rescuer import STEP, Rescued, Rescuer, read_expired, rescue
from callboard.maintenance.watch import Watch
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command, ScriptCall
from callboard.storage.scripts import script
from tests.support import tasks
from tests.support.waiting import wait_until

POLICY = Policy(lease_seconds=0.4)


@pytest.fixture
def rescuer(connection: Connection) -> Rescuer:
    """One that has seen Redis healthy for a lease."""
    watch = Watch(0.02)
    made = Rescuer(watch, lambda _queue: POLICY)

    def steady() -> bool:
        watch.observe(connection)
        return watch.steady_for(connection, "q", POLICY.lease_seconds)

    wait_until(steady, description="a healthy lease")
    return made


def settle(rescuer: Rescuer, connection: Connection) -> Rescued:
    """Rescue as soon as there is something to rescue, with the watch kept awake."""

    def step() -> Rescued | None:
        rescuer._watch.observe(connection)
        done = rescuer.run_once(connection, "q")
        return done if done.states else None

    found = wait_until(step, description="a rescue")
    assert found is not None
    return found


def show(connection: Connection, worker: str) -> None:
    connection.execute(Command("SET", connection.keys.worker(worker), "{}"))


def test_a_vanished_worker_costs_an_attempt(rescuer: Rescuer, connection: Connection) -> None:
    [(local, _)] = tasks.run(connection, "q", lease_ms=1)
    assert settle(rescuer, connection).states == {"queued": 1}
    record = tasks.record(connection, "q", local)
    assert record.state == "queued"
    assert [attempt.outcome for attempt in record.attempts] == ["lost"]
    assert record.attempts[0].worker == "w1"
    assert record.interruptions == ()
    tasks.turn(connection, "q", want=1)
    assert tasks.record(connection, "q", local).attempt == 2


def test_a_worker_that_is_present_costs_none(rescuer: Rescuer, connection: Connection) -> None:
    show(connection, "w1")
    [(local, _)] = tasks.run(connection, "q", lease_ms=1)
    assert settle(rescuer, connection).states == {"queued": 1}
    record = tasks.record(connection, "q", local)
    assert record.attempts == ()
    assert [stop.cause for stop in record.interruptions] == ["lease expired"]
    tasks.turn(connection, "q", want=1)
    assert tasks.record(connection, "q", local).attempt == 1


def test_a_present_worker_has_a_quarter_of_a_lease_more_to_renew(
    rescuer: Rescuer, connection: Connection
) -> None:
    show(connection, "w1")
    [(local, token)] = tasks.run(connection, "q", lease_ms=1)
    [expired] = wait_until(lambda: connection.run(read_expired(connection.keys, "q")), description="expiry")
    if expired.since_ms < 50:  # else this machine was too slow to look in time
        rescuer._watch.observe(connection)
        begun = clock.monotonic()
        done = rescuer.run_once(connection, "q")
        if clock.monotonic() - begun < 0.05:
            # A machine that stood still just before looks like an outage.
            assert done == Rescued() or done.held_back
    renew = script("callboard.broker", "renew")
    prefix = connection.keys.queue("q").prefix
    [answer] = connection.execute(ScriptCall(renew, prefix, (60_000, local, token)))
    assert answer == b"ok"
    assert connection.run(read_expired(connection.keys, "q")) == []


@pytest.mark.parametrize("present", [False, True])
def test_the_third_lost_lease_quarantines(rescuer: Rescuer, connection: Connection, present: bool) -> None:
    if present:
        show(connection, "w1")
    [(local, _)] = tasks.run(connection, "q", lease_ms=1, max_attempts=10)
    for _ in range(2):
        assert settle(rescuer, connection).states == {"queued": 1}
        tasks.turn(connection, "q", want=1, lease_ms=1)
    assert settle(rescuer, connection).states == {"failed": 1}
    record = tasks.record(connection, "q", local)
    assert (record.state, record.reason) == ("failed", "quarantined")


def test_a_lost_last_attempt_ends_in_failed(rescuer: Rescuer, connection: Connection) -> None:
    [(local, _)] = tasks.run(connection, "q", lease_ms=1, max_attempts=1)
    assert settle(rescuer, connection).states == {"failed": 1}
    record = tasks.record(connection, "q", local)
    assert record.reason == "exhausted"
    assert record.error is not None
    assert "w1 vanished" in record.error["message"]


def test_a_cancelled_task_of_a_dead_worker_does_not_run_again(
    rescuer: Rescuer, connection: Connection
) -> None:
    [(local, _)] = tasks.run(connection, "q", lease_ms=1)
    cancel = script("callboard.broker", "cancel")
    connection.execute(ScriptCall(cancel, connection.keys.queue("q").prefix, (local, "0")))
    assert settle(rescuer, connection).states == {"cancelled": 1}


def test_a_lease_that_was_renewed_or_passed_on_is_left_alone(connection: Connection) -> None:
    tasks.run(connection, "q", lease_ms=1)
    [lease] = wait_until(lambda: connection.run(read_expired(connection.keys, "q")), description="expiry")
    assert connection.run(rescue(connection.keys, "q", [lease], {"w1": Fate()})) == ["queued"]
    tasks.turn(connection, "q", want=1, worker="w2", lease_ms=1)
    wait_until(lambda: connection.run(read_expired(connection.keys, "q")), description="expiry of w2's")
    # The same call again, resent after a lost reply: the token is another by now.
    assert connection.run(rescue(connection.keys, "q", [lease], {"w1": Fate()})) == [""]


def test_a_step_is_bounded_and_goes_on(rescuer: Rescuer, connection: Connection) -> None:
    tasks.run(connection, "q", STEP + 5, lease_ms=1)
    wait_until(
        lambda: len(connection.run(read_expired(connection.keys, "q"))) == STEP,
        description="50 expired leases",
    )
    done = settle(rescuer, connection)
    assert done.states == {"queued": STEP}
    assert done.again_seconds == 0
    wait_until(lambda: settle(rescuer, connection).states == {"queued": 5}, description="the rest")


def test_a_record_that_cannot_be_read_is_buried(rescuer: Rescuer, connection: Connection) -> None:
    [(local, _)] = tasks.run(connection, "q", lease_ms=1)
    connection.execute(Command("SET", connection.keys.queue("q").mutable(local), b"\xffrubbish"))
    assert settle(rescuer, connection).states == {"failed": 1}
    assert tasks.record(connection, "q", local).reason == "permanent"


def test_nothing_is_judged_before_a_healthy_lease(connection: Connection) -> None:
    tasks.run(connection, "q", lease_ms=1)
    watch = Watch(0.02)
    watch.observe(connection)
    rescuer = Rescuer(watch, lambda _queue: Policy(lease_seconds=3600))
    assert rescuer.run_once(connection, "q") == Rescued(held_back=True)
    assert tasks.size(connection, "q", "running") == 1


class Renewer:
    """A worker that renews like one: every quarter of a lease, and goes on trying while Redis is away."""

    def __init__(self, connection: Connection, claims: list[tasks.Claim], lease_ms: int) -> None:
        self.answers: set[str] = set()
        self.done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(connection, claims, lease_ms), daemon=True)
        self._thread.start()

    def _run(self, connection: Connection, claims: list[tasks.Claim], lease_ms: int) -> None:
        renew = script("callboard.broker", "renew")
        flat = [word for claim in claims for word in claim]
        while not self.done.wait(lease_ms / 4000):
            try:
                call = ScriptCall(renew, connection.keys.queue("q").prefix, (lease_ms, *flat))
                self.answers |= {answer.decode() for answer in connection.execute(call)}
            except StoreUnavailable:
                continue

    def stop(self) -> set[str]:
        self.done.set()
        self._thread.join()
        return self.answers


@pytest.mark.parametrize("outage", ["killed", "frozen"])
def test_an_outage_longer_than_a_lease_costs_nothing(
    outage: str,
    start_server: Callable[..., EmbeddedServer],
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = start_server(persistent=True, config={"appendfsync": "always"})
    pid = server.pid
    assert pid is not None
    connection = Connection(server.url, namespace=namespace)
    policy = Policy(lease_seconds=1.2)
    with caplog.at_level(logging.INFO, logger="callboard.maintenance"):
        loops = Loops(connection, "h1", policy=policy, queues=lambda: ["q"])
        loops.start()
        claims = tasks.run(connection, "q", 8, lease_ms=1200)
        renewer = Renewer(connection, claims, 1200)
        wait_until(
            lambda: loops.watch.steady("", policy.lease_seconds), 60, description="a first healthy lease"
        )
        if outage == "killed":
            server.kill()
            wait_until(lambda: not loops.reachable, description="the outage to be seen")
            deadline = clock.monotonic() + 2.5
            wait_until(lambda: clock.monotonic() > deadline, description="the outage to last")
            back = clock.monotonic()
            server.start()
        else:
            os.kill(pid, signal.SIGSTOP)
            deadline = clock.monotonic() + 2.5
            wait_until(lambda: clock.monotonic() > deadline, description="the outage to last")
            back = clock.monotonic()
            os.kill(pid, signal.SIGCONT)
        resumed = loops.ticks
        wait_until(lambda: loops.ticks > resumed + 2 and loops.reachable, description="maintenance to go on")
        steady = loops.watch.steady("", policy.lease_seconds)
        # On a machine that was busy meanwhile a lease may have passed already.
        assert not steady or clock.monotonic() - back > policy.lease_seconds
        wait_until(
            lambda: loops.watch.steady("", policy.lease_seconds), timeout=60, description="a healthy lease"
        )
        judged = loops.ticks
        wait_until(lambda: loops.ticks > judged + 5, description="some rounds of the rescuer")
        loops.stop()
    assert renewer.stop() == {"ok"}
    assert tasks.size(connection, "q", "running") == 8
    assert all(tasks.record(connection, "q", local).interruptions == () for local, _ in claims)
    if outage == "killed":
        said = [record.message for record in caplog.records if record.name == "callboard.maintenance.rounds"]
        assert sum("pauses" in line for line in said) == 1
        assert sum("goes on" in line for line in said) == 1
    connection.close()


def test_a_dead_worker_is_rescued_by_whoever_holds_the_lease(connection: Connection) -> None:
    policy = Policy(lease_seconds=0.4)
    both = [Loops(connection, holder, policy=policy, queues=lambda: ["q"]) for holder in ("h1", "h2")]
    for loops in both:
        loops.start()
    try:
        [(local, _)] = tasks.run(connection, "q", lease_ms=400)
        wait_until(lambda: tasks.record(connection, "q", local).state == "queued", description="the rescue")
        assert len(tasks.record(connection, "q", local).attempts) == 1
    finally:
        for loops in both:
            loops.stop()
