"""What a body prints is its task's; what others print is not touched."""

from __future__ import annotations

import contextvars
import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import pytest

from callboard import stdio


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def log(self, level: str, text: str) -> None:
        self.lines.append((level, text))


@contextmanager
def captured() -> Iterator[io.StringIO]:
    """The streams captured, with one of ours behind stdout. (pytest changes them between its phases.)"""
    behind = io.StringIO()
    with redirect_stdout(behind):
        stdio.capture()
        try:
            yield behind
        finally:
            stdio.release()


def test_lines_of_a_body_go_to_its_log() -> None:
    log = Log()
    with captured() as behind:
        with stdio.printing(log):
            print("one")
            print("two\nthree", file=sys.stderr)
            print("be", end="")
            print("gun", end="")
        print("outside")
    assert log.lines == [("info", "one"), ("warning", "two"), ("warning", "three"), ("info", "begun")]
    assert behind.getvalue() == "outside\n"


def test_threads_do_not_mix() -> None:
    logs = [Log() for _ in range(4)]
    barrier = threading.Barrier(4)

    def body(number: int) -> None:
        with stdio.printing(logs[number]):
            barrier.wait()
            for line in range(50):
                print(number, end=" ")
                print(line)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(4)]
    with captured():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, log in enumerate(logs):
        assert [text for _, text in log.lines] == [f"{number} {line}" for line in range(50)]


def test_a_line_that_never_ends_is_written_in_parts() -> None:
    log = Log()
    with captured(), stdio.printing(log):
        for _ in range(5):
            sys.stdout.write("x" * 5000)
    assert sum(len(text) for _, text in log.lines) == 25_000
    assert len(log.lines) > 1


def test_the_stand_in_is_otherwise_the_stream() -> None:
    with captured() as behind:
        assert isinstance(sys.stdout, stdio.TaskStream)
        assert sys.stdout.getvalue is not None
        assert sys.stdout.writable()
        sys.stdout.close()
        print("still open")
        assert behind.getvalue() == "still open\n"


def test_captures_are_counted_and_the_original_comes_back() -> None:
    original = sys.stdout
    stdio.capture()
    stdio.capture()
    stdio.release()
    assert sys.stdout is not original
    stdio.release()
    assert sys.stdout is original


def test_somebody_elses_stream_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stdio.capture()
    assert isinstance(sys.stderr, stdio.TaskStream)
    own = sys.stderr.original
    monkeypatch.setattr(sys, "stdout", own)
    stdio.release()
    assert sys.stdout is own


def test_a_forked_copy_prints_for_itself() -> None:
    log = Log()

    def body() -> None:
        with stdio.printing(log):
            stdio.detach()
            print("for itself")

    with captured() as behind:
        contextvars.copy_context().run(body)
        assert behind.getvalue() == "for itself\n"
    assert log.lines == []
