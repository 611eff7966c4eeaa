"""Dramatiq's hooks around a body that is one of its messages, in the order of Dramatiq's own worker.

They run where the body runs, or, for a body in a child or on the event loop, on a small pool of threads.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from weakref import WeakKeyDictionary

import dramatiq
from dramatiq import Middleware
from dramatiq.errors import RateLimitExceeded
from dramatiq.middleware import MiddlewareError, ShutdownNotifications, SkipMessage, TimeLimit

from callboard import context
from callboard.broker.broker import CallboardBroker
from callboard.broker.message import HeldMessage
from callboard.broker.result import BadResult
from callboard_worker.slots.remote import raised_by
from callboard_worker.slots.slot import Outcome

logger = logging.getLogger(__name__)

#: They stop the thread that their hook runs in, which is the body's in Dramatiq's own worker only.
_OF_THE_THREAD = (TimeLimit, ShutdownNotifications)


#: The process that told a broker of its start; a forked child has another number.
_booted: WeakKeyDictionary[dramatiq.Broker, int] = WeakKeyDictionary()


def process_booted(broker: dramatiq.Broker) -> None:
    """Hooks of a worker process that has loaded its modules: once in each, again does nothing.

    Not TimeLimit's: limits are the slots' here.
    """
    if _booted.get(broker) == os.getpid():
        return
    _booted[broker] = os.getpid()
    for middleware in reversed(broker.middleware):
        if isinstance(middleware, TimeLimit):
            continue
        try:
            middleware.after_process_boot(broker)
        except Exception:
            logger.critical("after_process_boot of %r failed.", middleware, exc_info=True)


def before(broker: CallboardBroker, message: HeldMessage, *, here: bool) -> BaseException | None:
    """Hooks before the body; what they raised, if they want the body left out.

    `here`: the body will run in this thread.
    """
    try:
        if here:
            broker.emit_before("process_message", message)
        else:
            _before_elsewhere(broker, message)
    except BaseException as error:
        return error
    return None


def _before_elsewhere(broker: CallboardBroker, message: HeldMessage) -> None:
    for middleware in broker.middleware:
        if isinstance(middleware, _OF_THE_THREAD):
            continue
        try:
            middleware.before_process_message(broker, message)
        except MiddlewareError:
            raise
        except Exception:
            logger.critical("before_process_message of %r failed.", middleware, exc_info=True)


def after(broker: CallboardBroker, message: HeldMessage, outcome: Outcome) -> None:
    """Hooks after the body, then those before the acknowledgement."""
    if outcome.exception is None and outcome.kind == "completed":
        broker.emit_after("process_message", message, result=outcome.returned())
    else:
        _after_failure(broker, message, outcome, raised_by(outcome))
    broker.emit_before("nack" if message.failed else "ack", message)


def _after_failure(
    broker: CallboardBroker, message: HeldMessage, outcome: Outcome, error: BaseException
) -> None:
    if isinstance(error, SkipMessage):
        message.skipped = True
        if message.failed:
            message.stuff_exception(error)
            message.raised = error
        logger.warning("Message %s was skipped.", message)
        broker.emit_after("skip_message", message)
        return
    message.stuff_exception(error)
    # Retries knows permanent errors by `throws` alone, and nothing of snoozes and cancels.
    message.final = outcome.error is not None and not outcome.error.retryable
    snoozed = outcome.kind == "retry" and not outcome.counts
    message.decided = message.final or snoozed or outcome.kind == "cancelled"
    if isinstance(error, context.Retry):
        error = dramatiq.Retry(str(error), delay=outcome.retry_after_ms)
    _log(broker, message, error)
    _tell(broker, message, error)


def _tell(broker: CallboardBroker, message: HeldMessage, error: BaseException) -> None:
    """While it is being handled: Retries and others ask for the current traceback."""
    trace = error.__traceback__
    try:
        raise error
    except BaseException:
        broker.emit_after("process_message", message, exception=error)
    finally:
        # Without this frame in it, which would hold it in a circle.
        error.__traceback__ = trace
        del error, trace


def around(broker: CallboardBroker, message: HeldMessage, body: Callable[[], Outcome]) -> Outcome:
    """Run a body between its hooks, here."""
    refused = before(broker, message, here=True)
    if refused is not None:
        outcome = skipped(refused)
    elif message.failed:
        outcome = Outcome("completed")
    else:
        outcome = kept(body())
    try:
        after(broker, message, outcome)
        return outcome
    finally:
        # The exception's frames hold this one, which must not hold the exception: only cyclic garbage
        # collection would free them.
        del outcome


def kept(outcome: Outcome) -> Outcome:
    """The outcome; a result that no record can keep is no failure where hooks get the object itself.

    Dramatiq's stores of results may encode what JSON cannot, or more of it.
    """
    if outcome.value is None or not isinstance(outcome.exception, BadResult):
        return outcome
    logger.warning("%s The record goes without it.", outcome.exception)
    return Outcome("completed", value=outcome.value, run_ms=outcome.run_ms)


def skipped(error: BaseException) -> Outcome:
    """The outcome of a body that a hook left out."""
    kind = "completed" if isinstance(error, SkipMessage) else "failed"
    return Outcome(kind, exception=error)  # type: ignore[arg-type]


def acknowledged(broker: CallboardBroker, message: HeldMessage) -> None:
    """Hooks after the end is recorded."""
    broker.emit_after("nack" if message.failed else "ack", message)
    message.clear_exception()


def hears_shutdown(broker: CallboardBroker, message: HeldMessage) -> bool:
    """Whether its body wants Dramatiq's Shutdown when the worker is told to stop."""
    actor = broker.actors.get(message.actor_name)
    notifier = next((m for m in broker.middleware if isinstance(m, ShutdownNotifications)), None)
    return actor is not None and notifier is not None and bool(notifier.should_notify(actor, message))


def listens(broker: CallboardBroker, hook: str) -> bool:
    """Whether any middleware has this hook; the base class's do nothing."""
    plain = getattr(Middleware, hook)
    return any(getattr(type(m), hook, plain) is not plain for m in broker.middleware)


def rewrites(broker: CallboardBroker) -> bool:
    """Whether a hook may change what the body gets: Dramatiq's own do not."""
    theirs = [m for m in broker.middleware if not type(m).__module__.startswith("dramatiq.")]
    return any(type(m).before_process_message is not Middleware.before_process_message for m in theirs)


def rewritten(message: HeldMessage) -> bytes | None:
    """The message as the hooks have left it; None if they left what cannot be encoded."""
    try:
        return message.encode()  # type: ignore[no-any-return]
    except Exception:
        logger.exception("Hooks left %s unfit for its encoder; its body gets what was sent.", message)
        return None


def _log(broker: CallboardBroker, message: HeldMessage, error: BaseException) -> None:
    actor = broker.actors.get(message.actor_name)
    throws = message.options.get("throws") or (actor.options.get("throws") if actor else None)
    if isinstance(error, RateLimitExceeded):
        logger.debug("Rate limit exceeded in message %s: %s.", message, error)
    elif throws and isinstance(error, throws):
        logger.info("Message %s failed with the expected %s.", message, type(error).__name__)
    elif not isinstance(error, dramatiq.Retry):
        logger.error("Message %s failed: %s: %s", message, type(error).__name__, error)
