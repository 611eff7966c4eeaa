"""Weighted lists of `Accept` and `Accept-Encoding`."""

from __future__ import annotations

import pytest

from callboard_api.weights import weights


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", {}),
        (b" , ;q=0, ", {}),
        (b"gzip", {"gzip": 1}),
        (b"br;q=1, GZIP;q=0.8,*;Q=0", {"br": 1, "gzip": 0.8, "*": 0}),
        (b"text/html;level=1 ; q=0.25", {"text/html": 0.25}),
        (b"gzip;q=, br;q=1e9, zstd;q=nan, x;q=2", {"gzip": 1, "br": 1, "zstd": 1, "x": 1}),
        (b"gzip; q=0" + b" " * 60_000, {"gzip": 0}),
        (b"g" + b" " * 60_000 + b"x", {"g" + " " * 60_000 + "x": 1}),
    ],
)
def test_weights(value: bytes, expected: dict[str, float]) -> None:
    assert weights([value]) == expected


def test_several_headers_are_one() -> None:
    assert weights([b"a;q=0.5", b"b"]) == {"a": 0.5, "b": 1.0}
