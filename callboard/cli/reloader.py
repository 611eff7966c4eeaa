"""Restarts workers when their code changes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from callboard.cli.preflight import PreflightFailed
from callboard.errors import MissingExtra


class Reloadable(Protocol):
    """What of a supervisor is needed here."""

    def check_modules(self) -> None: ...
    def restart_workers(self) -> None: ...
    def say(self, name: str, line: str) -> None: ...


def require_watcher() -> None:
    """Raises MissingExtra without watchfiles."""
    try:
        import watchfiles
    except ImportError as error:
        raise MissingExtra("laptop", "watchfiles") from error
    del watchfiles


def watch_code(supervisor: Reloadable, folders: Sequence[str], stop: threading.Event) -> None:
    """Until `stop`: after a change of Python code below `folders`, restart the workers.

    Code that does not import leaves them as they are: the traceback is shown instead.
    """
    from watchfiles import PythonFilter, watch

    try:
        _watch(
            supervisor,
            watch(*folders, watch_filter=PythonFilter(), stop_event=stop, raise_interrupt=False),
            stop,
        )
    except OSError as error:
        supervisor.say("callboard", f"cannot watch the code any more: {error}")


def _watch(supervisor: Reloadable, changing: Iterable[set[tuple[Any, str]]], stop: threading.Event) -> None:
    for changes in changing:
        names = ", ".join(sorted({Path(path).name for _, path in changes}))
        try:
            supervisor.check_modules()
        except PreflightFailed as error:
            for line in str(error).splitlines():
                supervisor.say("callboard", line)
            supervisor.say("callboard", f"{names} changed and does not load; the workers keep the old code")
            continue
        if stop.is_set():
            return
        supervisor.say("callboard", f"{names} changed; restarting the workers")
        supervisor.restart_workers()
