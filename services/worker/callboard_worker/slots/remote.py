"""Exceptions that were raised in a child, for Dramatiq's hooks: some look at the class and its attributes."""

from __future__ import annotations

import functools
import logging
import pickle

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
    try:
        encoded = pickle.dumps(error)
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
    elif (copy := _unpacked(outcome.pickled)) is not None:
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
        error = pickle.loads(encoded)
    except Exception as why:
        # Such as a class whose __init__ takes other arguments than it hands to its base.
        logger.debug("An exception did not survive the way out of its child: %s", why)
        return None
    return error if isinstance(error, BaseException) else None


@functools.lru_cache(maxsize=1000)
def _stand_in(name: str) -> type[RemoteError]:
    return type(name.rpartition(".")[2], (RemoteError,), {"__module__": __name__})
