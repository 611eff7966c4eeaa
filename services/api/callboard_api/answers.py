"""Answers: JSON bodies with their headers, compressed where that pays."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from callboard_api import problems
from callboard_api.weights import weights

#: Below this a compressed answer saves nothing.
COMPRESS_ABOVE: Final = 1024
#: Above this it is compressed beside the event loop, which other requests share.
_COMPRESS_BESIDE_ABOVE: Final = 128 * 1024
_encoder: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_BODILESS: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class Answer:
    """An ASGI answer with a body that is known whole.

    body: JSON to be, or bytes as they are; None for none.
    """

    __slots__ = ("body", "headers", "media_type", "status")

    def __init__(
        self,
        body: Any = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> None:
        self.body = None if body is None else body if isinstance(body, bytes) else encode(body)
        self.status = status
        self.headers = headers or {}
        self.media_type = media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        body = self.body or b""
        if self.status not in _BODILESS:
            headers.append((b"content-type", self.media_type.encode()))
            if len(body) > COMPRESS_ABOVE:
                headers.append((b"vary", b"accept-encoding"))
                if takes_gzip(scope):
                    body = await _compressed(body)
                    headers.append((b"content-encoding", b"gzip"))
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class ProblemAnswer(Answer):
    """A problem as the whole answer."""

    def __init__(self, rejected: problems.Rejected, request_id: str) -> None:
        super().__init__(
            problems.encode(rejected.document(request_id)),
            rejected.status,
            rejected.headers,
            problems.MEDIA_TYPE,
        )


def encode(document: Any) -> bytes:
    """JSON, UTF-8. What a foreign program stored and JSON cannot say (NaN) becomes null."""
    try:
        text = _encoder.encode(document)
    except ValueError:
        text = _encoder.encode(_finite(document))
    return text.encode("utf-8", "replace")


async def _compressed(body: bytes) -> bytes:
    if len(body) <= _COMPRESS_BESIDE_ABOVE:
        return gzip.compress(body, compresslevel=4, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, compresslevel=4, mtime=0)


def etag(body: bytes) -> str:
    """A weak validator: the same resource, whatever its encoding."""
    return f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def takes_gzip(scope: Scope) -> bool:
    """Whether the request accepts gzip, `q=0` honoured."""
    given = weights(value for name, value in scope["headers"] if name == b"accept-encoding")
    return next((given[name] for name in ("gzip", "x-gzip", "*") if name in given), 0.0) > 0


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
