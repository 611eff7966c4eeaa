"""Task ids."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from callboard import clock
from callboard.errors import TaskNotFound
from callboard.records import ids

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def value(local: str) -> int:
    return sum(CROCKFORD.index(letter) << 5 * place for place, letter in enumerate(reversed(local)))


def test_ours_are_ulids_of_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 4_000_000_000_000)
    monkeypatch.setattr(ids, "_last", (0, 0, ""))
    first, second = ids.new_local(), ids.new_local()
    assert len(first) == 26
    assert value(first) >> 80 == 4_000_000_000_000
    assert value(second) == value(first) + 1


@pytest.mark.parametrize("noise", [0, 1, 2**40 - 1, 2**40, 2**79 - 1, 0x155_5555_5555_5555_5555])
def test_every_bit_of_an_id_has_its_place(monkeypatch: pytest.MonkeyPatch, noise: int) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 1)
    for ms in (1, 2**48 - 1, 0x5555_5555_5555):
        monkeypatch.setattr(ids, "_last", (ms, noise, ""))
        assert value(ids.new_local()) == ms << 80 | (noise + 1)


def test_ids_grow_when_the_clock_stands_or_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5000, 5000, 4000, 5001, 5001])
    monkeypatch.setattr(clock, "now_ms", lambda: next(times))
    monkeypatch.setattr(ids, "_last", (0, 0, ""))
    made = [ids.new_local() for _ in range(5)]
    assert made == sorted(set(made))


def test_in_one_millisecond_they_count_upwards_through_every_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 7)
    monkeypatch.setattr(ids, "_last", (7, 2**20 - 1500, ""))
    made = [value(ids.new_local()) for _ in range(3000)]
    assert made == list(range(made[0], made[0] + 3000))
    assert made[-1] > (7 << 80) + 2**20


def test_threads_share_one_sequence() -> None:
    made: list[str] = []

    def make() -> None:
        made.extend(ids.new_local() for _ in range(500))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2000


def test_an_id_names_its_queue() -> None:
    task_id = ids.new_id("a_b-c.d")
    assert ids.queue_of(task_id) == "a_b-c.d"
    for odd in ("", "_", "queue", "queue_", "_local", "1queue_x", "queue_x y", "q" * 65 + "_x"):
        with pytest.raises(TaskNotFound):
            ids.split(odd)


def _of_a_child() -> str:
    """An id that a forked child makes; "" from one that hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os.write(writing, ids.new_local().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        made = said.read()
    os.waitpid(child, 0)
    return made


def test_a_forked_child_makes_other_ids_than_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one millisecond, or after a step back of the clock, both once counted on from the same number."""
    monkeypatch.setattr(ids, "_last", (clock.now_ms() + 60_000, 7, ""))
    assert len({_of_a_child(), _of_a_child(), ids.new_local()} - {""}) == 3


def test_a_child_that_is_forked_while_an_id_is_made_makes_its_own() -> None:
    with ids._lock:
        made = _of_a_child()
    assert made
