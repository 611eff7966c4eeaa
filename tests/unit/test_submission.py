"""Submissions: what no script could take is refused before anything is sent."""

from __future__ import annotations

from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest

from callboard.broker.submission import Submission
from callboard.errors import Invalid


class Urgency(IntEnum):
    """As a program may name its priorities."""

    HIGH = 1


@pytest.mark.parametrize("number", ["delay_ms", "due_at_ms", "expires_in_ms", "priority"])
@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_a_number_is_whole_and_no_truth_value(number: str, value: Any) -> None:
    """True is a number to Python and none to Lua, which stopped in the middle of a batch."""
    with pytest.raises(Invalid):
        Submission(name="a.task", queue="q", **{number: value})


@pytest.mark.parametrize("weight", [True, Decimal(2), "1", 0, -1, float("nan"), float("inf"), 2**70, 10**400])
def test_a_weight_is_a_number_that_can_be_sent(weight: Any) -> None:
    with pytest.raises(Invalid):
        Submission(name="a.task", queue="q", weight=weight)


def test_a_program_may_name_its_numbers() -> None:
    made = Submission(name="a.task", queue="q", priority=Urgency.HIGH, weight=Urgency.HIGH)
    assert (made.priority, made.weight) == (1, 1)
