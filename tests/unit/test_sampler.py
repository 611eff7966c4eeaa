"""Percentiles from the stored buckets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.maintenance.sampler import read_tallies, spread


def bucket(ms: int) -> int:
    """As finishing.lua does it."""
    return math.floor(math.log(ms + 1) / math.log(2) * 2)


@given(st.lists(st.integers(0, 3_600_000), min_size=1, max_size=300))
def test_a_percentile_is_within_its_bucket(durations: list[int]) -> None:
    buckets: dict[int, int] = {}
    for ms in durations:
        buckets[bucket(ms)] = buckets.get(bucket(ms), 0) + 1
    found = spread(buckets)
    assert found is not None
    durations.sort()
    for share, told in ((0.50, found.p50), (0.95, found.p95), (0.99, found.p99)):
        true = durations[math.ceil(share * len(durations) - 1e-9) - 1]
        low, high = 2 ** (bucket(true) / 2) - 1, 2 ** ((bucket(true) + 1) / 2) - 1
        assert low - 1e-6 <= told <= high + 1e-6


def test_no_runs_no_percentiles() -> None:
    assert spread({}) is None
    assert spread({3: 0}) is None


def test_a_window_is_whole_minutes_and_the_running_one() -> None:
    now = 100 * 60_000 + 30_000
    fields = {"100:n": 3, "100:ms": 30, "100:r4": 3, "99:n": 6, "99:ms": 60, "99:f": 2, "98:n": 50, "70:n": 9}
    found = read_tallies("q", now, fields, 2)
    assert (found.finished, found.failed, found.mean_run_ms) == (9, 2, 10)
    assert found.per_second == pytest.approx(9 / 90)
    assert [minute.at_ms for minute in found.minutes] == [99 * 60_000, 100 * 60_000]
    assert read_tallies("q", now, fields, 30).finished == 59
    assert read_tallies("q", now, fields, 0).window_minutes == 1
