"""Definitions: what this worker knows how to run, native tasks and Dramatiq actors alike."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import Any

import dramatiq
from dramatiq.middleware import TimeLimit

from callboard.broker.broker import CallboardBroker
from callboard.broker.message import priority_of
from callboard.catalog.contract import Contract, ContractOptions, contract_of
from callboard.catalog.terms import Terms
from callboard.errors import InvalidDeclaration
from callboard.task import registered
from callboard_worker.slots.body import own_function

logger = logging.getLogger(__name__)

#: What a Dramatiq time limit leaves a body to stop by itself, before it is killed.
_HARD_AFTER_MS = 60_000


@dataclass(frozen=True, slots=True)
class Definition:
    """A name that this worker can run. `actor`: a Dramatiq actor, whose retries are its middleware's."""

    contract: Contract
    actor: bool
    throws: Any = None

    @property
    def terms(self) -> Terms:
        """What holds now, the queue's defaults filled in."""
        return self.contract.terms()


def definitions(broker: CallboardBroker) -> dict[str, Definition]:
    """Everything that the loaded modules declare, by name.

    Raises InvalidDeclaration when a task and an actor share a name.
    """
    found = {name: Definition(task.contract, actor=False) for name, task in registered().items()}
    for name, actor in broker.actors.items():
        if name in found:
            raise InvalidDeclaration(
                f"{name!r} names both a task ({found[name].contract.place}) and a Dramatiq actor."
            )
        found[name] = of_actor(actor, broker)
    return found


def of_actor(actor: dramatiq.Actor[Any, Any], broker: CallboardBroker) -> Definition:
    """What an actor comes to here: its queue, its limits, its final exceptions."""
    limiter = next((m for m in broker.middleware if isinstance(m, TimeLimit)), None)
    attempts = broker.max_attempts(actor.options)
    options: ContractOptions = {
        "queue": actor.queue_name,
        "priority": priority_of(actor.priority),
        "retries": None if attempts is None else attempts - 1,
        "soft_limit": None,
    }
    time_limit = actor.options.get("time_limit", limiter.time_limit if limiter else None)
    if time_limit is not None:
        soft, hard = _limits_of(time_limit)
        options["soft_limit"] = None if soft is None else timedelta(milliseconds=soft)
        options["hard_limit"] = None if hard is None else timedelta(milliseconds=hard)
    contract = contract_of(own_function(actor), name=actor.actor_name, lenient=True, **options)
    return Definition(contract, actor=True, throws=actor.options.get("throws"))


def limits(
    definition: Definition, terms: Terms, options: Mapping[str, Any] | None = None
) -> tuple[int | None, int | None]:
    """Soft and hard limit in ms; `options`: a Dramatiq message's, which may name a `time_limit`."""
    own = (options or {}).get("time_limit")
    return _limits_of(own) if own and definition.actor else (terms.soft_limit_ms, terms.hard_limit_ms)


def _limits_of(time_limit: float) -> tuple[int | None, int | None]:
    """What a Dramatiq time limit in ms comes to; infinity is none at all."""
    if time_limit == inf:
        return None, None
    return int(time_limit), int(time_limit) + _HARD_AFTER_MS


def contracts(found: Iterable[Definition]) -> list[Contract]:
    """The contracts, for the catalog."""
    return [definition.contract for definition in found]
