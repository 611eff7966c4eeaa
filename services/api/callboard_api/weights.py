"""Weighted lists, as `Accept` and `Accept-Encoding` have them: what a client takes, and how gladly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_WEIGHT: Final = re.compile(r"[01](?:\.\d{0,3})?", re.ASCII)


def weights(values: Iterable[bytes]) -> dict[str, float]:
    """The names in a header's values, in lower case and without parameters; 1 where no weight can be read.

    By splitting: a pattern for the whole goes back over runs of spaces, and a header may be 64 KiB of them.
    """
    found: dict[str, float] = {}
    for item in b",".join(values).decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        if name:
            given = [value for key, _, value in (text.partition("=") for text in parameters) if key == "q"]
            found[name] = float(given[-1]) if given and _WEIGHT.fullmatch(given[-1]) else 1.0
    return found
