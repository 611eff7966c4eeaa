"""How a task that a real worker serves begins and ends: its first word, its lines, its attempts."""

from __future__ import annotations

from typing import Any

from callboard.records import log
from callboard.records.record import TaskRecord
from tests.support.board import Board
from tests.support.waiting import wait_until

#: The forms of bodies in `worker_bodies`, and those of them that block their thread.
FORMS = ("box", "thread", "coro")
BLOCKING = ("box", "thread")


def lines(board: Board, task: str) -> list[str]:
    return [line.message for line in board.run(log.logs(board.keys, task)).items]


def started(board: Board, task: str) -> None:
    """Wait until its body has said its first word."""
    wait_until(lambda: lines(board, task), 20, f"the first word of {task}")


def run(board: Board, name: str, payload: object = None, **options: Any) -> TaskRecord:
    [task] = board.submit(name, payload=payload, **options)
    [record] = board.await_end([task], 30)
    return record


def outcomes(record: TaskRecord) -> list[str | None]:
    return [attempt.outcome for attempt in record.attempts]
