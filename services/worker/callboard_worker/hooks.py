"""Dramatiq's hooks around a body that is one of its messages, in the order of Dramatiq's own worker.

They run where the body runs, or, for a body in a child or on the event loop, on a small pool of threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dramatiq import Middleware
from dramatiq.errors import RateLimitExceeded, Retry
from dramatiq.middleware import SkipMessage, TimeLimitExceeded

from callboard.broker.broker import CallboardBroker
from callboard.broker.message import HeldMessage
from callboard_worker.slots.slot import Outcome

logger = logging.getLogger(__name__)


class RemoteError(Exception):
    """Stands for an exception that was raised in a child: its class's name, its message."""


def before(broker: CallboardBroker, message: HeldMessage) -> BaseException | None:
    """Hooks before the body; what they raised, if they want the body left out."""
    try:
        broker.emit_before("process_message", message)
    except BaseException as error:
        return error
    return None


def after(broker: CallboardBroker, message: HeldMessage, outcome: Outcome) -> None:
    """Hooks after the body, then those before the acknowledgement."""
    error = outcome.exception
    if isinstance(error, SkipMessage):
        if message.failed:
            message.stuff_exception(error)
            message.raised = error
        logger.warning("Message %s was skipped.", message)
        broker.emit_after("skip_message", message)
    elif error is None and outcome.kind == "completed":
        broker.emit_after("process_message", message, result=outcome.value)
    else:
        error = error or _stand_in(outcome)
        message.stuff_exception(error)
        if outcome.error is not None and not outcome.error.retryable:
            # Retries knows final exceptions by class, and this one's may have stayed in a child.
            message.options["throws"] = type(error)
        _log(broker, message, error)
        broker.emit_after("process_message", message, exception=error)
    broker.emit_before("nack" if message.failed else "ack", message)


def around(broker: CallboardBroker, message: HeldMessage, body: Callable[[], Outcome]) -> Outcome:
    """Run a body between its hooks, here."""
    refused = before(broker, message)
    if refused is not None:
        outcome = skipped(refused)
    elif message.failed:
        outcome = Outcome("completed")
    else:
        outcome = body()
    after(broker, message, outcome)
    return outcome


def skipped(error: BaseException) -> Outcome:
    """The outcome of a body that a hook left out."""
    kind = "completed" if isinstance(error, SkipMessage) else "failed"
    return Outcome(kind, exception=error)  # type: ignore[arg-type]


def acknowledged(broker: CallboardBroker, message: HeldMessage) -> None:
    """Hooks after the end is recorded."""
    broker.emit_after("nack" if message.failed else "ack", message)
    message.clear_exception()


def listens(broker: CallboardBroker, hook: str) -> bool:
    """Whether any middleware has this hook; the base class's do nothing."""
    plain = getattr(Middleware, hook)
    return any(getattr(type(m), hook, plain) is not plain for m in broker.middleware)


def _stand_in(outcome: Outcome) -> BaseException:
    if outcome.kind == "timeout":
        return TimeLimitExceeded()
    told = outcome.error
    if outcome.kind == "retry":
        return Retry(told.message if told else "", delay=outcome.retry_after_ms)
    return RemoteError(f"{told.type}: {told.message}" if told else outcome.kind)


def _log(broker: CallboardBroker, message: HeldMessage, error: BaseException) -> None:
    actor = broker.actors.get(message.actor_name)
    throws = message.options.get("throws") or (actor.options.get("throws") if actor else None)
    if isinstance(error, RateLimitExceeded):
        logger.debug("Rate limit exceeded in message %s: %s.", message, error)
    elif throws and isinstance(error, throws):
        logger.info("Message %s failed with the expected %s.", message, type(error).__name__)
    elif not isinstance(error, Retry):
        logger.error("Message %s failed: %s: %s", message, type(error).__name__, error)
