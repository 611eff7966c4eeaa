"""Forks at a bad moment: while another thread of the parent holds a lock."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def forked(body: Callable[[], object], holding: AbstractContextManager[Any] | None = None) -> int:
    """Fork while a thread is inside `holding`, run `body` in the child, and give the child's exit code.

    0: the body's answer was true; 1: it was false; 2: it raised; -SIGALRM: it hung for 30 s.
    """
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with holding or nullcontext():
            inside.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(10)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        code = 2
        try:
            code = 0 if body() else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    done.set()
    holder.join()
    return os.waitstatus_to_exitcode(status)
