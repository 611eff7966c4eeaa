"""Definitions: what this worker knows how to run, native tasks and Dramatiq actors alike."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dramatiq

from callboard.broker.actors import contract_of_actor, limits_of
from callboard.broker.broker import CallboardBroker
from callboard.catalog.contract import Contract
from callboard.catalog.terms import Terms
from callboard.errors import InvalidDeclaration
from callboard.task import registered

logger = logging.getLogger(__name__)


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
    """What an actor comes to here: its contract, its final exceptions."""
    contract = contract_of_actor(actor, broker.middleware, broker.max_attempts(actor.options))
    return Definition(contract, actor=True, throws=actor.options.get("throws"))


def limits(
    definition: Definition, terms: Terms, options: Mapping[str, Any] | None = None
) -> tuple[int | None, int | None]:
    """Soft and hard limit in ms; `options`: a Dramatiq message's, which may name a `time_limit`."""
    own = (options or {}).get("time_limit")
    return limits_of(own) if own and definition.actor else (terms.soft_limit_ms, terms.hard_limit_ms)


def contracts(found: Iterable[Definition]) -> list[Contract]:
    """The contracts, for the catalog."""
    return [definition.contract for definition in found]
