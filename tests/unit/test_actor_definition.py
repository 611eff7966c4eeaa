"""What an actor's options come to in Callboard's terms."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import Retries, TimeLimit

from callboard.broker.broker import CallboardBroker
from callboard_worker.definition import Definition, limits, of_actor


def defined(broker: CallboardBroker, **options: Any) -> Definition:
    @dramatiq.actor(broker=broker, **options)
    def work(x: int) -> int:
        return x

    return of_actor(work, broker)


@pytest.fixture
def broker() -> CallboardBroker:
    return CallboardBroker()


def test_the_middlewares_defaults_hold(broker: CallboardBroker) -> None:
    terms = defined(broker).terms
    assert (terms.soft_limit_ms, terms.hard_limit_ms, terms.retries) == (600_000, 660_000, 20)


@pytest.mark.parametrize(
    ("options", "soft_ms", "hard_ms"),
    [
        ({"time_limit": 1000}, 1000, 61_000),
        ({"time_limit": 1500.0}, 1500, 61_500),
        ({"time_limit": float("inf")}, None, None),
    ],
)
def test_a_time_limit_is_the_soft_one(
    broker: CallboardBroker, options: dict[str, Any], soft_ms: int | None, hard_ms: int | None
) -> None:
    definition = defined(broker, **options)
    assert limits(definition, definition.terms) == (soft_ms, hard_ms)
    other = defined(CallboardBroker())
    assert limits(other, other.terms, options) == (soft_ms, hard_ms), "a message's own"


def test_without_the_middleware_the_queues_hard_limit_holds() -> None:
    definition = defined(CallboardBroker(middleware=[Retries()]))
    assert limits(definition, definition.terms) == (None, 600_000)


@pytest.mark.parametrize(
    ("options", "retries"),
    [({"max_retries": 0}, 0), ({"max_retries": None}, None), ({"retry_when": lambda n, error: False}, None)],
)
def test_retries_are_the_middlewares(
    broker: CallboardBroker, options: dict[str, Any], retries: int | None
) -> None:
    assert defined(broker, **options).terms.retries == retries


def test_without_retries_there_are_none() -> None:
    assert defined(CallboardBroker(middleware=[TimeLimit()])).terms.retries == 0
