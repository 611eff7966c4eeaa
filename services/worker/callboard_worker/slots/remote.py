"""Exceptions that were raised in a child, for Dramatiq's hooks: some look at the class and its attributes."""

from __future__ import annotations

import functools
import logging
import pickle
from types import FunctionType
from typing import Any

import dramatiq
from dramatiq.middleware import TimeLimitExceeded

from callboard_worker.slots.slot import Outcome

logger = logging.getLogger(__name__)

#: Longer ones are represented by a stand-in.
PICKLE_LIMIT_BYTES = 64 * 1024


class RemoteError(Exception):
    """Base of the stand-ins for exceptions that cannot cross; a stand-in has its original's name and text."""


class RemoteTraceback(Exception):
    """The cause of what was raised in a child: shows where."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


def packed(error: BaseException | None) -> bytes | None:
    """For the way out of a child: the exception itself, if there is one and it can be pickled."""
    if error is None:
        return None
    kind = type(error)
    try:
        if kind.__reduce__ is BaseException.__reduce__ and isinstance(kind.__init__, FunctionType):
            # Its own __init__ may take anything but `args`, with which pickle would call it.
            encoded = pickle.dumps((_rebuild, kind, error.args, error.__dict__))
        else:
            encoded = pickle.dumps((None, error))
    except Exception:
        return None
    return encoded if len(encoded) <= PICKLE_LIMIT_BYTES else None


def raised_by(outcome: Outcome) -> BaseException:
    """The exception of an outcome that has one: itself, its copy, or its stand-in."""
    if outcome.exception is not None:
        return outcome.exception
    told = outcome.error
    if outcome.kind == "timeout":
        error: BaseException = TimeLimitExceeded(told.message if told else "")
    elif (copy := _unpacked(outcome.pickled)) is not None and (told is None or str(copy) == told.message):
        error = copy
    elif outcome.kind == "retry":
        error = dramatiq.Retry(told.message if told else "", delay=outcome.retry_after_ms)
    elif told is not None:
        error = _stand_in(told.type)(told.message)
    else:
        error = RemoteError(outcome.kind)
    if told is not None and told.traceback:
        error.__cause__ = RemoteTraceback(told.traceback)
    return error


def _unpacked(encoded: bytes | None) -> BaseException | None:
    if encoded is None:
        return None
    try:
        rebuild, *parts = pickle.loads(encoded)
        error = rebuild(*parts) if rebuild else parts[0]
    except Exception as why:
        logger.debug("An exception did not survive the way out of its child: %s", why)
        return None
    return error if isinstance(error, BaseException) else None


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


@functools.lru_cache(maxsize=1000)
def _stand_in(name: str) -> type[RemoteError]:
    return type(name.rpartition(".")[2], (RemoteError,), {"__module__": __name__})
