"""How deep JSON is nested: every reader must be able to decode it, however deep its own stack is."""

from __future__ import annotations

import re
from typing import Final

#: Payloads and results are refused above this. Python's own limit is about 1,000, all calls included.
DEEPEST: Final = 100

_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def too_deep(encoded: bytes, deepest: int = DEEPEST) -> bool:
    """Whether a JSON text has more than `deepest` arrays and objects inside one another."""
    # Counting is nearly free, and settles it for almost all.
    if encoded.count(b"[") + encoded.count(b"{") <= deepest:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_TEXT.sub(b"", encoded)):
        depth += 1 if bracket in b"[{" else -1
        if depth > deepest:
            return True
    return False
