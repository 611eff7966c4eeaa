"""How a command ends: its exit codes, and which error means which. Described in docs/cli.md."""

from __future__ import annotations

from enum import IntEnum

from callboard.errors import CallboardError, Invalid, TaskFailed, Unavailable, WaitTimeout


class Exit(IntEnum):
    """The exit codes, which scripts rely on."""

    DONE = 0
    TASK_FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    BUG = 70
    INTERRUPTED = 130
    CLOSED_PIPE = 141


#: What a proxy, or an API without its store, answers: asking again later may help.
_AWAY_STATUSES = frozenset({502, 503, 504})


def exit_of(error: CallboardError) -> Exit:
    """The exit code that an error ends a command with."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return Exit.UNREACHABLE if status in _AWAY_STATUSES else Exit.REFUSED
    if isinstance(error, TaskFailed | WaitTimeout):
        return Exit.TASK_FAILED
    if isinstance(error, Unavailable):
        return Exit.UNREACHABLE
    # What is invalid before any request was typed or set wrongly.
    return Exit.USAGE if isinstance(error, Invalid) else Exit.REFUSED
