"""Results: what a body returned, as JSON of at most 1 MiB; the same for a worker, a test and a debugger."""

from __future__ import annotations

import dataclasses
import json
import logging
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from callboard.records.nesting import DEEPEST, too_deep

logger = logging.getLogger(__name__)

RESULT_BYTES = 1024 * 1024
# Types whose JSON form is beyond doubt. Others are refused: a guess would surprise who reads the result.
_PLAIN = (BaseModel, datetime, date, time, timedelta, Decimal, Enum, PurePath, UUID, set, frozenset)


class BadResult(Exception):
    """The returned value cannot be kept. The message names its size or type, and the limit."""


def _plain(value: Any) -> Any:
    if isinstance(value, _PLAIN) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return to_jsonable_python(value)
    raise TypeError(f"the type {type(value).__qualname__!r} has no JSON form")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode


def encode_result(value: Any) -> bytes:
    """The value as JSON. Models, dataclasses, dates, UUIDs and sets are taken too. Raises BadResult."""
    if value is None:
        return b"null"
    try:
        encoded = _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(f"The result cannot be kept as JSON: {error}.") from error
    except Exception as error:
        # A property or serializer of the user's own model failed.
        raise BadResult(f"The result cannot be kept as JSON: {type(error).__name__}: {error}.") from error
    if len(encoded) > RESULT_BYTES:
        raise BadResult(
            f"The result has {len(encoded):,} bytes; at most {RESULT_BYTES:,} are kept. "
            "Store it elsewhere and return where it is."
        )
    if too_deep(encoded):
        raise BadResult(f"The result is nested deeper than {DEEPEST} levels, so nobody could read it again.")
    return encoded


def encode_actor_result(value: Any, actor: str) -> bytes:
    """JSON of what a Dramatiq actor returned; b"" for None.

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
