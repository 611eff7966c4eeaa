"""What the clients ask of httpx for an address."""

from __future__ import annotations

import pytest

from callboard.client.endpoint import Endpoint


@pytest.mark.parametrize(
    ("url", "trust_env", "verify"),
    [
        ("http://127.0.0.1:8000", False, False),
        ("http://localhost:8000", False, False),
        ("http://[::1]:8000", False, False),
        ("https://localhost:8443", False, True),
        ("http://callboard.internal", True, True),
        ("https://callboard.example", True, True),
    ],
)
def test_certificates_are_read_and_checked_but_for_plain_http_on_this_machine(
    url: str, trust_env: bool, verify: bool
) -> None:
    options = Endpoint(url, "a-key").options()
    assert (options["trust_env"], options["verify"]) == (trust_env, verify)
    assert options["follow_redirects"] is False
