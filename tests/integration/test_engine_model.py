"""Scripts in random order against the model: all of them, and long runs in the corners where they meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from callboard.storage.connection import Connection
from tests.support.engine_machine import EngineMachine, only

CORNERS = {
    "fairness": (
        "submit",
        "claim",
        "settle",
        "cancel",
        "retry",
        "a_worker_is_silent",
        "an_unreadable_one_is_dropped",
        "reweigh",
        "tidy",
        "purge",
    ),
    "leases": (
        "submit",
        "claim",
        "turn",
        "renew",
        "cancel",
        "rescue",
        "a_worker_is_silent",
        "expired",
        "retry",
    ),
    "foreign ids": ("enqueue_foreign", "claim", "settle", "retry", "delete", "prune"),
    "outbox": ("submit", "claim", "turn", "retry", "deliver", "delete"),
    "delays": ("submit", "claim", "turn", "promote", "the_next_is_due", "time_passes", "pause", "cancel"),
}
# Shrinking a failure may take minutes; a test that ends before it would hide what failed.
pytestmark = pytest.mark.timeout(600)

Run = Callable[..., None]


@pytest.fixture
def run(redis_url: str) -> Iterator[Run]:
    connection = Connection(redis_url)

    def run(*rules: str, examples: int, length: int) -> None:
        machine = type("Machine", (EngineMachine,), {"client": connection.client, "url": redis_url})
        run_state_machine_as_test(
            only(machine, *rules) if rules else machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=length,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[phase for phase in Phase if phase is not Phase.explain],
            ),
        )

    yield run
    connection.close()


def test_every_script_in_random_order_agrees_with_the_model(run: Run) -> None:
    run(examples=150, length=50)


@pytest.mark.parametrize("corner", CORNERS)
def test_a_corner_agrees_with_the_model(run: Run, corner: str) -> None:
    run(*CORNERS[corner], examples=60, length=50)


@pytest.mark.proof
def test_every_script_in_long_random_orders_agrees_with_the_model(run: Run) -> None:
    run(examples=250, length=80)


@pytest.mark.proof
@pytest.mark.parametrize("corner", CORNERS)
def test_a_corner_agrees_with_the_model_for_long(run: Run, corner: str) -> None:
    run(*CORNERS[corner], examples=100, length=80)
