"""What thread and loop slots share with the worker whose process they live in: hooks, print, logging."""

from __future__ import annotations

import logging
import threading

from callboard import stdio
from callboard.catalog.loading import users_traceback
from callboard.context import TaskLogHandler, child_start_hooks, child_stop_hooks
from callboard.errors import CallboardError

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_users: list[None] = []
_log_handler = TaskLogHandler()


class HookFailed(CallboardError):
    """A hook of on_child_start raised; the message ends with its traceback."""

    code = "hook-failed"


def enter() -> None:
    """Bodies are going to run in this process. Counted: the first one does it. Raises HookFailed."""
    with _lock:
        if not _users:
            for hook in child_start_hooks:
                try:
                    hook()
                except Exception as error:
                    raise HookFailed(f"A hook of on_child_start failed:\n{users_traceback(error)}") from None
            stdio.capture()
            logging.getLogger().addHandler(_log_handler)
        _users.append(None)


def leave() -> None:
    """No more of them; the last one undoes what the first one did."""
    with _lock:
        if not _users:
            return
        _users.pop()
        if _users:
            return
        logging.getLogger().removeHandler(_log_handler)
        stdio.release()
        run_stop_hooks()


def run_stop_hooks() -> None:
    """on_child_stop's, the last registered first. One that fails does not keep the others from running."""
    for hook in reversed(child_stop_hooks):
        try:
            hook()
        except Exception:
            logger.exception("A hook of on_child_stop failed.")
