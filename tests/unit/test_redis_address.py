"""Where a Redis is, in words that can be compared."""

from __future__ import annotations

import pytest

from callboard.storage.address import Address


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://h", "h:6379/0"),
        ("redis://user:secret@h:6379/0?protocol=3", "h:6379/0"),
        ("rediss://h:6380/2", "h:6380/2"),
        ("unix://user:secret@/tmp/x.sock?db=1", "/tmp/x.sock/1"),
        ("redis+sentinel://:secret@a,b:1/main/3", "sentinel a:26379,b:1/main/3"),
        ("redis+cluster://user:secret@a,b:7001", "cluster a:6379,b:7001"),
    ],
)
def test_a_place_has_its_defaults_and_no_secrets(url: str, place: str) -> None:
    assert Address.parse(url).place == place
