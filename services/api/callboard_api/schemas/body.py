"""Bodies: read up to a limit, and parsed as JSON that every party reads the same way."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final

from starlette.types import Message, Receive, Scope

from callboard_api.problems import Rejected

#: A body with one task, and one with a batch.
SINGLE_BYTES: Final = 1024 * 1024
BATCH_BYTES: Final = 16 * 1024 * 1024
#: Arrays and objects inside each other.
DEPTH: Final = 32
#: Above this a body is parsed beside the event loop, which other requests share.
_LONG: Final = 128 * 1024

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class _Refused(ValueError):
    """JSON by its grammar, but not as we take it."""


async def read(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The body, whole. Raises Rejected (413) as soon as it is known to be longer than `limit`."""
    receive = bounded(scope, receive, limit)
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def bounded(scope: Scope, receive: Receive, limit: int) -> Receive:
    """`receive` for whoever reads the body: it raises Rejected (413) as soon as that is longer than `limit`.

    Raises Rejected at once for a length that the client announces.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    size = 0

    async def counting() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise _too_large(limit)
        return message

    return counting


class ClientGone(Exception):
    """The client has hung up before its request was whole; nobody reads an answer."""


def check_type(scope: Scope, *, empty: bool) -> None:
    """Raises Rejected (415) unless the body is declared as JSON in UTF-8; an empty one needs no type."""
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    codings = [value for name, value in scope["headers"] if name == b"content-encoding"]
    if any(coding.strip().lower() not in (b"", b"identity") for coding in codings):
        raise Rejected("unsupported-media-type", "Compressed bodies are not taken; send the JSON as it is.")
    if not types and empty:
        return
    media, _, parameters = (types[0] if len(types) == 1 else b"").decode("latin-1").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    if media.strip().lower() != "application/json" or (
        charset and charset[1].lower() not in ("utf-8", "utf8")
    ):
        raise Rejected(
            "unsupported-media-type",
            "A write needs the header Content-Type: application/json.",
            headers={"Accept": "application/json"},
        )


async def parse(raw: bytes) -> Any:
    """The JSON of a body, as `strict_json` gives it."""
    return strict_json(raw) if len(raw) <= _LONG else await asyncio.to_thread(strict_json, raw)


def strict_json(raw: bytes) -> Any:
    """Parse. Raises Rejected (400) for what is no JSON, and for what parsers read differently: NaN and
    Infinity, numbers beyond a double, an object's key given twice, half a surrogate pair; or nested deeper
    than DEPTH.
    """
    try:
        value = _decoder.decode(raw.decode("utf-8"))
        if raw.count(b"[") + raw.count(b"{") > DEPTH and _deeper(value, DEPTH):
            raise _Refused(f"it is nested deeper than {DEPTH} levels")
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise Rejected("invalid-json", f"The body is nested deeper than {DEPTH} levels.") from None
    except UnicodeDecodeError as error:
        raise Rejected("invalid-json", f"The body is not UTF-8 (byte {error.start}).") from None
    except UnicodeEncodeError:
        raise Rejected("invalid-json", "The body has half a surrogate pair, which is no character.") from None
    except json.JSONDecodeError as error:
        raise Rejected(
            "invalid-json", f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    except ValueError as error:
        raise Rejected("invalid-json", f"The body is not JSON that we take: {error}.") from None
    return value


def _too_large(limit: int) -> Rejected:
    return Rejected("payload-too-large", f"The body is longer than {limit:,} bytes.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"the key {twice[:100]!r} is given twice in one object")
    return found


def _refuse_constant(word: str) -> Any:
    raise _Refused(f"{word} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise _Refused(f"the number {text[:40]} does not fit a double")
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def _deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    if levels == 0:
        return True
    return any(_deeper(item, levels - 1) for item in value if isinstance(item, dict | list))
