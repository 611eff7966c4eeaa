"""Who gets a slot, and who has to wait until he can be alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from callboard_worker.dispatcher import Dispatcher, Lane, Pool
from callboard_worker.held import Held


class Floor:
    """A dispatcher with two queues on four slots; `started` is what runs."""

    def __init__(self) -> None:
        pool = Pool(4)
        self.started: list[Held] = []
        lanes = {name: Lane(self._queue(name), None, pool) for name in ("first", "second")}  # type: ignore[arg-type]
        self.dispatcher = Dispatcher(lanes, lambda lane, held: self.started.append(held))

    @staticmethod
    def _queue(name: str) -> Any:
        return SimpleNamespace(name=name, slots=4)

    def accept(self, *held: Held) -> list[Held]:
        return self.dispatcher.accept(held[0].queue, list(held))

    def end(self, held: Held) -> None:
        self.started.remove(held)
        self.dispatcher.ended(held, 1000)

    @property
    def rooms(self) -> list[int]:
        return [self.dispatcher.room(name) for name in ("first", "second")]


def task(queue: str = "first", *, suspect: bool = False) -> Held:
    return Held(None, queue, None, None, suspect=suspect)  # type: ignore[arg-type]


@pytest.fixture
def floor() -> Floor:
    return Floor()


def test_a_suspect_runs_when_everything_else_has_ended_and_alone(floor: Floor) -> None:
    beside, other, suspect = task(), task("second"), task(suspect=True)
    floor.accept(other)
    assert floor.accept(suspect, beside) == []
    assert floor.started == [other, beside]
    assert floor.rooms == [0, 0]
    floor.end(other)
    assert floor.started == [beside]
    floor.end(beside)
    assert floor.started == [suspect]
    assert floor.rooms == [0, 0]
    assert floor.dispatcher.waiting == 0
    floor.end(suspect)
    assert floor.rooms == [4, 4]


def test_of_two_suspects_one_goes_back(floor: Floor) -> None:
    one, two, plain = task(suspect=True), task(suspect=True), task()
    assert floor.accept(one, two) == [two]
    assert floor.started == [one]
    # What a resent claim brings while one is alone waits for its end.
    assert floor.accept(plain) == []
    assert floor.started == [one]
    floor.end(one)
    assert floor.started == [plain]


def test_a_suspect_that_waits_can_be_withdrawn_and_drained(floor: Floor) -> None:
    running, suspect, second = task(), task(suspect=True), task(suspect=True)
    floor.accept(running)
    floor.accept(suspect)
    assert floor.dispatcher.waiting == 1
    assert floor.dispatcher.withdraw(suspect)
    assert not floor.dispatcher.withdraw(suspect)
    assert floor.rooms == [3, 3]
    floor.accept(second)
    assert floor.dispatcher.drain() == [second]
    assert floor.dispatcher.waiting == 0
    floor.end(running)
    assert floor.started == []


def test_a_suspect_that_runs_can_be_neither(floor: Floor) -> None:
    suspect = task(suspect=True)
    floor.accept(suspect)
    assert floor.started == [suspect]
    assert not floor.dispatcher.withdraw(suspect)
    assert floor.dispatcher.drain() == []
