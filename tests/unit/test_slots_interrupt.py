"""An exception from outside strikes in the body, or nowhere."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

import pytest

from callboard_worker.slots.interrupt import Guard


class Stop(Exception):
    """What the tests deliver."""


def busy(started: threading.Event | None = None) -> None:
    if started is not None:
        started.set()
    number = 0
    while True:
        number += 1


def deliver_when(event: threading.Event, guard: Guard) -> threading.Thread:
    def deliver() -> None:
        assert event.wait(10)
        guard.deliver(Stop)

    thread = threading.Thread(target=deliver)
    thread.start()
    return thread


def test_it_strikes_in_running_python_code() -> None:
    guard = Guard()
    started = threading.Event()
    thread = deliver_when(started, guard)
    with pytest.raises(Stop):
        guard.call(busy, (started,), {})
    thread.join()


def test_one_that_comes_early_strikes_before_the_body_does_anything() -> None:
    guard = Guard()
    guard.deliver(Stop)
    ran: list[int] = []
    with pytest.raises(Stop):
        guard.call(ran.append, (1,), {})
    assert ran == []


def test_one_that_comes_late_never_strikes() -> None:
    guard = Guard()
    assert guard.call(lambda: 5, (), {}) == 5
    guard.deliver(Stop)
    for _ in range(1000):
        assert len("no exception here") == 17


def test_only_the_first_counts() -> None:
    guard = Guard()
    struck: list[str] = []

    def body() -> str:
        for _ in range(2):
            try:
                guard.deliver(Stop)  # From its own thread it may as well.
                busy_for(1000)
            except Stop:
                struck.append("struck")
        return "done"

    assert guard.call(body, (), {}) == "done"
    assert struck == ["struck"]


def busy_for(rounds: int) -> None:
    number = 0
    while number < rounds:
        number += 1


def test_our_own_code_in_the_body_is_shielded() -> None:
    guard = Guard()
    inside, go_on = threading.Event(), threading.Event()
    steps: list[str] = []

    def deliver() -> None:
        assert inside.wait(10)
        guard.deliver(Stop)
        go_on.set()

    def body() -> None:
        with guard.shielded():
            inside.set()
            assert go_on.wait(10)
            busy_for(10_000)
            steps.append("the shielded part is whole")
        steps.append("not reached")

    thread = threading.Thread(target=deliver)
    thread.start()
    with pytest.raises(Stop):
        guard.call(body, (), {})
    thread.join()
    assert steps == ["the shielded part is whole"]


def test_shields_nest() -> None:
    guard = Guard()

    def body() -> str:
        with guard.shielded():
            with guard.shielded():
                pass
            guard.deliver(Stop)
            busy_for(1000)
        return "not reached"

    with pytest.raises(Stop):
        guard.call(body, (), {})


@pytest.mark.parametrize("early", [True, False])
def test_a_canceller_is_called_instead_whenever_the_stop_comes(early: bool) -> None:
    guard = Guard()
    calls: list[str] = []
    if early:
        guard.deliver(Stop)
    guard.cancel_with(lambda: calls.append("cancelled"))
    if not early:
        guard.deliver(Stop)
    assert calls == ["cancelled"]


def test_the_bodys_own_error_passes() -> None:
    with pytest.raises(ZeroDivisionError):
        Guard().call(lambda: 1 // 0, (), {})


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads take turns after every few instructions, so that races happen."""
    former = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(former)


@pytest.mark.usefixtures("eager_switching")
@pytest.mark.parametrize("rounds", [0, 1, 40, 400])
def test_in_thousands_of_races_it_never_strikes_outside(rounds: int) -> None:
    """Given bodies of a length that a stop meets at any point of their life
    When another thread stops each of them at once
    I expect a value or the stop out of each, and no exception in the code between them.
    """
    deliveries: list[Guard] = []
    done = threading.Event()

    def stopper() -> None:
        while not done.is_set():
            if deliveries:
                deliveries.pop().deliver(Stop)

    thread = threading.Thread(target=stopper)
    thread.start()
    ends = {"value": 0, "stop": 0}
    try:
        for _ in range(3000):
            guard = Guard()
            deliveries.append(guard)
            try:
                guard.call(busy_for, (rounds,), {})
                ends["value"] += 1
            except Stop:
                ends["stop"] += 1
            busy_for(20)
    finally:
        done.set()
        thread.join()
    assert sum(ends.values()) == 3000
    if rounds == 400:
        assert ends["stop"] > 0, "the bodies were too short to meet a stop"


def test_a_thread_that_waits_is_struck_when_it_returns() -> None:
    """Python offers no more: a soft limit cannot end a system call in a thread."""
    event = threading.Event()
    entered = threading.Event()
    ended: list[type[BaseException]] = []

    def body() -> None:
        entered.set()
        event.wait(30)
        busy_for(1000)

    guards: list[Guard] = []

    def run() -> None:
        guards.append(Guard())
        try:
            guards[0].call(body, (), {})
        except Stop as error:
            ended.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    assert entered.wait(10)
    guards[0].deliver(Stop)
    assert thread.is_alive()
    event.set()
    thread.join(10)
    assert ended == [Stop]


@pytest.mark.usefixtures("eager_switching")
def test_no_exception_is_left_pending_in_the_thread() -> None:
    """A stop that comes as the body returns is taken back: the next body of the thread is innocent."""
    returning: list[Guard] = []
    delivered: list[Guard] = []
    done = threading.Event()

    def stopper() -> None:
        while not done.is_set():
            if returning:
                returning[0].deliver(Stop)
                delivered.append(returning.pop())

    thread = threading.Thread(target=stopper)
    thread.start()
    try:
        for _ in range(150):
            guard = Guard()
            with contextlib.suppress(Stop):
                # The body's last act is to ask for its stop.
                guard.call(returning.append, (guard,), {})
            assert Guard().call(lambda: 1, (), {}) == 1
            while returning:
                busy_for(1)
    finally:
        done.set()
        thread.join()
    assert len(delivered) == 150
