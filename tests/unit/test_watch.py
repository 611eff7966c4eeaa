"""When Redis counts as healthy: the rescuer's licence."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard import clock
from callboard.errors import StoreUnavailable
from callboard.maintenance.watch import Answer, Watch
from callboard.storage.operation import Everywhere, Operation

LEASE = 20.0


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def our(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(clock, "monotonic", made.monotonic)
    return made


def listen(
    watch: Watch, our: Clock, seconds: float, *, every: float = 1.0, run_id: str = "a", ahead: float = 0.0
) -> None:
    """Answers for `seconds`; Redis's clock is `ahead` of ours."""
    end = our.at + seconds
    while our.at + every <= end + 1e-9:
        our.at += every
        watch.note("", Answer(run_id, our.at + 5000 + ahead, our.at))


def test_a_whole_lease_of_answers_is_asked_for(our: Clock) -> None:
    watch = Watch()
    assert not watch.steady("", LEASE)
    listen(watch, our, 20)
    assert not watch.steady("", LEASE)
    listen(watch, our, 1)
    assert watch.steady("", LEASE)
    assert not watch.steady("another node", LEASE)


def test_silence_of_a_quarter_lease_begins_anew(our: Clock) -> None:
    watch = Watch()
    listen(watch, our, 60)
    our.at += 4
    listen(watch, our, 1)
    assert watch.steady("", LEASE), "five seconds without an answer cost no lease of twenty"
    our.at += 5.5
    assert not watch.steady("", LEASE), "silent now"
    listen(watch, our, 20)
    assert not watch.steady("", LEASE)
    listen(watch, our, 1)
    assert watch.steady("", LEASE)


def test_another_server_begins_anew(our: Clock) -> None:
    watch = Watch()
    listen(watch, our, 60)
    listen(watch, our, 20, run_id="b")
    assert not watch.steady("", LEASE)
    listen(watch, our, 1, run_id="b")
    assert watch.steady("", LEASE)


@pytest.mark.parametrize("step", [60.0, 1.5, -1.5, -3600.0])
def test_a_step_of_the_clock_begins_anew(our: Clock, step: float) -> None:
    watch = Watch()
    listen(watch, our, 60)
    listen(watch, our, 10, ahead=step)
    assert not watch.steady("", LEASE)
    listen(watch, our, 11, ahead=step)
    assert watch.steady("", LEASE)


def test_a_clock_that_runs_too_fast_is_never_healthy(our: Clock) -> None:
    watch = Watch()
    for second in range(200):
        listen(watch, our, 1, ahead=second * 0.1)
        assert not watch.steady("", LEASE)


def test_a_clock_that_is_slewed_as_ntp_does_is_healthy(our: Clock) -> None:
    watch = Watch()
    for second in range(20_000):
        listen(watch, our, 1, ahead=second * 0.0005)
    assert watch.steady("", LEASE)


def test_each_lease_has_its_own_measure(our: Clock) -> None:
    watch = Watch()
    listen(watch, our, 200)
    our.at += 5
    listen(watch, our, 5)
    assert not watch.steady("", LEASE)
    assert watch.steady("", 60.0)
    assert watch.steady("", 4.0), "its four seconds came after the gap"


def test_a_node_that_took_the_queue_over_begins_then(our: Clock) -> None:
    watch = Watch()
    listen(watch, our, 60)
    assert not watch.steady("", LEASE, since=our.at - 19)
    assert watch.steady("", LEASE, since=our.at - 20)


@given(st.lists(st.floats(0.05, 12.0), min_size=1, max_size=200))
def test_it_is_never_steady_over_a_gap(pauses: list[float]) -> None:
    watch, at = Watch(), 1000.0
    answers: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        for pause in pauses:
            at += pause
            answers.append(at)
            watch.note("", Answer("a", at, at))
            patch.setattr(clock, "monotonic", lambda now=at: now)
            if watch.steady("", LEASE):
                recent = [a for a in answers if a >= at - LEASE]
                before = [a for a in answers if a < at - LEASE]
                assert before or recent[0] == at - LEASE, "less than a lease has been seen"
                line = [*before[-1:], *recent]
                assert all(b - a <= LEASE / 4 for a, b in pairwise(line))


class Reply:
    """A connection to nodes that answer so."""

    def __init__(self, info: dict[str, object], times: dict[str, object]) -> None:
        self.info, self.times = info, times

    def run(self, operation: Operation[dict[str, Answer | None]]) -> dict[str, Answer | None]:
        try:
            request = next(operation)
            while True:
                assert isinstance(request, Everywhere)
                request = operation.send(self.info if request.words[0] == "INFO" else self.times)
        except StopIteration as end:
            return end.value


def test_a_short_info_is_made_up_for_by_time(our: Clock) -> None:
    watch = Watch()
    for _ in range(21):
        our.at += 1
        seconds = int(our.at)
        reply = Reply({"": {"run_id": "a"}}, {"": (seconds, 5)})
        watch.observe(reply)  # type: ignore[arg-type]
    assert watch.steady("", LEASE)


def test_a_node_that_does_not_answer_is_no_news_of_the_others(our: Clock) -> None:
    watch = Watch()
    for _ in range(21):
        our.at += 1
        well = {"run_id": "a", "server_time_usec": int(our.at * 1e6)}
        watch.observe(Reply({"n1": well, "n2": StoreUnavailable("away")}, {}))  # type: ignore[arg-type]
    assert watch.steady("n1", LEASE)
    assert not watch.steady("n2", LEASE)
