"""Definitions: what this worker knows how to run, native tasks and Dramatiq actors alike."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dramatiq
from dramatiq.middleware import TimeLimit

from callboard.broker.broker import CallboardBroker
from callboard.broker.message import priority_of
from callboard.catalog.contract import Contract, contract_of
from callboard.catalog.queue import queue_named
from callboard.catalog.terms import Terms
from callboard.errors import InvalidDeclaration
from callboard.task import registered

logger = logging.getLogger(__name__)

#: What a Dramatiq time limit leaves a body to stop by itself, before it is killed.
_HARD_AFTER_MS = 60_000


@dataclass(frozen=True, slots=True)
class Definition:
    """A name that this worker can run. `actor`: a Dramatiq actor, whose retries are its middleware's."""

    contract: Contract
    actor: bool
    soft_limit_ms: int | None = None
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
    contract = contract_of(
        actor.fn,
        name=actor.actor_name,
        queue=actor.queue_name,
        priority=priority_of(actor.priority),
        lenient=True,
    )
    limiter = next((m for m in broker.middleware if isinstance(m, TimeLimit)), None)
    soft = actor.options.get("time_limit", limiter.time_limit if limiter else None)
    return Definition(contract, True, None if soft is None else int(soft), actor.options.get("throws"))


def limits(
    definition: Definition, terms: Terms, options: Mapping[str, Any] | None = None
) -> tuple[int | None, int | None]:
    """Soft and hard limit in ms; of an actor, its `time_limit` option and a minute more."""
    if not definition.actor:
        return terms.soft_limit_ms, terms.hard_limit_ms
    soft = (options or {}).get("time_limit", definition.soft_limit_ms)
    if soft is None:
        return None, queue_named(terms.queue).hard_limit_ms
    return int(soft), int(soft) + _HARD_AFTER_MS


def contracts(found: Iterable[Definition]) -> list[Contract]:
    """The contracts, for the catalog."""
    return [definition.contract for definition in found]
