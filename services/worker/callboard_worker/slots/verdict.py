"""How an attempt ended whose child did not live to tell."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from callboard_worker.slots import kernel
from callboard_worker.slots.handle import SEND_SECONDS, ChildHandle
from callboard_worker.slots.limits import KIND_OF_STOP, Stint
from callboard_worker.slots.lines import clip_start
from callboard_worker.slots.slot import TRACEBACK_LIMIT_BYTES, Outcome, TaskError

_MIB = 1024 * 1024
_OUR_FRAME = re.compile(
    rf'^  File "(?:{re.escape(str(Path(__file__).parent))}/[^"]*|<string>)", line \d+ in .*\n?', re.MULTILINE
)


def verdict(
    child: ChildHandle | None, stint: Stint, code: int | None, *, oom_killed: bool = False
) -> Outcome:
    """Why the child is dead: a stop, its memory, or itself. No child: stopped before one had begun."""
    cause = None if child is None else child.killed_for
    run_ms = stint.run_ms
    # A body that has replaced our handler dies of the polite signal.
    stopped = child is None or cause == stint.why or code == -signal.SIGUSR1
    if stint.why is not None and stopped:
        error = stint.stopped_error(stint.why, killed=child is not None)
        return Outcome(KIND_OF_STOP[stint.why], error=_with_last_words(error, child), run_ms=run_ms)
    if cause == "memory" or (cause is None and oom_killed):
        return Outcome("memory", error=_with_last_words(_memory(child, stint), child), run_ms=run_ms)
    text = {
        "deaf": f"The child process did not take its task within {SEND_SECONDS:g} s, and was killed.",
        "garbled": "The body closed or garbled its process's connection to the worker, which killed it.",
    }.get(cause or "", f"The child process {kernel.describe_exit(code)} while it ran the task.")
    if code == -9 and cause is None:
        text += " Not by this worker: the kernel does so when memory runs out."
    error = _with_last_words(TaskError("ProcessCrashed", text), child)
    return Outcome("crashed", error=error, run_ms=run_ms)


def _memory(child: ChildHandle | None, stint: Stint) -> TaskError:
    limit = stint.assignment.memory_limit_bytes
    if child is not None and child.memory_used and limit is not None:
        used = child.memory_used / _MIB
        return TaskError(
            "MemoryLimitExceeded", f"The body used {used:,.0f} MiB; its limit is {limit / _MIB:,.0f} MiB."
        )
    return TaskError("OutOfMemory", "The kernel killed the child process because memory ran out.")


def _with_last_words(error: TaskError | None, child: ChildHandle | None) -> TaskError | None:
    """What it wrote to stderr in the end: after a segfault Python's fatal error, before a kill its stack."""
    words = "" if child is None else _OUR_FRAME.sub("", child.output.tail())
    if error is None or not words:
        return error
    return TaskError(
        error.type, error.message, clip_start(words, TRACEBACK_LIMIT_BYTES), retryable=error.retryable
    )
