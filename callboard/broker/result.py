"""Results of Dramatiq actors as records keep them."""

from __future__ import annotations

import json
import logging
from typing import Any

logger = logging.getLogger(__name__)

RESULT_BYTES = 1024 * 1024


def encode_result(value: Any, actor: str) -> bytes:
    """JSON of what an actor returned; b"" for None.

    Dramatiq discards results that no middleware stores, so one that is no JSON or above 1 MiB is left out
    with a warning instead of failing a program that never asked for it.
    """
    if value is None:
        return b""
    try:
        encoded = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        logger.warning("The result of %s is not kept: it is not JSON (%s).", actor, error)
        return b""
    if len(encoded) > RESULT_BYTES:
        logger.warning(
            "The result of %s is not kept: %d bytes, at most %d.", actor, len(encoded), RESULT_BYTES
        )
        return b""
    return encoded
