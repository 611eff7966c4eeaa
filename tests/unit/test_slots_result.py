"""Results as JSON: what is taken, what is refused and how that is said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from callboard.broker.result import BadResult, encode_result

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


class Colour(Enum):
    RED = "red"


class Page(BaseModel):
    title: str
    at: datetime


@dataclass
class Point:
    x: float


@given(plain)
def test_plain_values_come_back_as_they_were(value: object) -> None:
    assert json.loads(encode_result(value)) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            Page(title="t", at=datetime(2026, 11, 22, tzinfo=UTC)),
            {"title": "t", "at": "2026-11-22T00:00:00Z"},
        ),
        ([Point(1)], [{"x": 1}]),
        ({"at": datetime(2026, 1, 2, 3, 4, 5)}, {"at": "2026-01-02T03:04:05"}),  # noqa: DTZ001
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        ({3}, [3]),
        ((1, 2), [1, 2]),
        (Path("/a/b"), "/a/b"),
    ],
)
def test_well_known_types_have_their_form(value: object, expected: object) -> None:
    assert json.loads(encode_result(value)) == expected


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (object(), "object"),
        (b"x", "bytes"),
        (float("nan"), "float"),
        (Point(float("inf")), "float"),
        ({(1, 2): 3}, "tuple"),
        ("\ud800", "surrogates"),
        (Point, "type"),
    ],
)
def test_what_has_no_json_form_is_refused_by_name(value: object, word: str) -> None:
    with pytest.raises(BadResult) as refused:
        encode_result(value)
    assert word in str(refused.value)


def test_a_circle_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(BadResult):
        encode_result(circle)


def test_a_result_of_a_mebibyte_is_kept_and_one_byte_more_is_not() -> None:
    assert len(encode_result("x" * (1024 * 1024 - 2))) == 1024 * 1024
    with pytest.raises(BadResult, match=r"1,048,577 bytes.*1,048,576"):
        encode_result("x" * (1024 * 1024 - 1))
