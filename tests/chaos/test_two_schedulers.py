"""Two schedulers, of which one is killed in the middle of a firing: each tick fires once."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from callboard import inspector
from callboard.catalog import timetable
from callboard.catalog.schedule import Schedule
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.scripts import script
from tests.support.board import Board
from tests.support.proxy import Deed, Proxy, runs
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess

Services = Callable[..., ServiceProcess]


def ticks(board: Board) -> list[int]:
    """The firings so far, by their nominal time in ms: it stands in the task's id."""
    found = board.run(inspector.find(board.keys, inspector.TaskFilter(queues=("ticks",)), limit=200))
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    times = []
    for task in found.items:
        number = 0
        for sign in task.id.rpartition("_")[2][:10]:
            number = number * 32 + alphabet.index(sign)
        times.append(number)
    return sorted(times)


def await_more(board: Board) -> None:
    """Wait until the next tick has fired."""
    before = len(ticks(board))
    wait_until(lambda: len(ticks(board)) > before, 10, "the next tick")


@pytest.mark.parametrize(
    ("deed", "name"),
    [("drop-reply", "broker/submit"), ("drop-request", "catalog/swap"), ("drop-reply", "catalog/swap")],
    ids=["submitted", "before its pointer moves", "after its pointer moved"],
)
def test_one_firing_each_tick(
    deed: Deed, name: str, services: Services, server: EmbeddedServer, proxy: Proxy, board: Board
) -> None:
    """One of them is killed three times, at the same point of a firing; the other one goes on."""
    package, _, stem = name.partition("/")
    steady = services("callboard_scheduler", server.url).ready()
    schedule = Schedule(id="each-second", task="a.tick", queue="ticks", interval_seconds=1)
    board.run(timetable.create(board.keys, schedule))
    for _ in range(3):
        victim = services("callboard_scheduler", proxy.url(server.url)).ready()
        rule = proxy.rule(deed, runs(script(f"callboard.{package}", stem)), times=1)
        # The steady one must not be always the first.
        steady.popen.send_signal(signal.SIGSTOP)
        rule.await_hit()
        victim.kill()
        steady.popen.send_signal(signal.SIGCONT)
        proxy.clear()
        await_more(board)
    steady.term()
    assert steady.wait(10) == 0
    fired = ticks(board)
    entry = board.run(timetable.get(board.keys, schedule.id))
    assert entry.last_nominal_ms is not None
    assert fired == list(range(entry.created_ms + 1000, entry.last_nominal_ms + 1, 1000))
    print(f"{deed} of {name}, killed 3 times: {len(fired)} ticks, {len(fired)} firings")
    assert board.faults() == []
