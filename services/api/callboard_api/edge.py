"""The edge: what every request meets first and last: its id, the source check, problems, metrics."""

from __future__ import annotations

import logging
import re
import secrets
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callboard import clock
from callboard.errors import CallboardError
from callboard.metrics import HTTP_REQUEST_SECONDS, HTTP_REQUESTS
from callboard_api import problems
from callboard_api.answers import ProblemAnswer
from callboard_api.platform import Platform
from callboard_api.problems import Rejected
from callboard_api.schemas.body import ClientGone

logger = logging.getLogger("callboard.api")

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Answered whoever asks by whatever name: a kubelet speaks to addresses.
_PROBES: Final = frozenset({"/livez", "/readyz"})
_NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")
#: What nginx logs for a client that hung up; nobody receives it.
_CLIENT_CLOSED: Final = 499


class Edge:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app = app
        self._platform = platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        started = clock.monotonic()
        request_id = _request_id(scope)
        encoded_id = request_id.encode()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", encoded_id),
                    _NO_SNIFFING,
                ]
            await send(message)

        rejected: Rejected | None = None
        try:
            if scope["path"] not in _PROBES:
                self._platform.guard.check_source(scope)
            await self._app(scope, receive, send_with_id)
        except Rejected as error:
            rejected = error
        except CallboardError as error:
            rejected = problems.of(error)
            if rejected.code == "internal":
                logger.exception("Request %s failed", request_id)
        except (ClientGone, ClientDisconnect):
            status = _CLIENT_CLOSED
        except Exception:
            logger.exception("Request %s failed", request_id)
            rejected = Rejected(
                "internal", "Something went wrong here; the log has it under this request's id."
            )
        if rejected is not None and status == 0:
            await ProblemAnswer(rejected, request_id)(scope, receive, send_with_id)
        _count(scope, status, clock.monotonic() - started)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": "not supported yet"})
            return
        await self._app(scope, receive, send)


def _request_id(scope: Scope) -> str:
    """The client's, if it is one word that is safe in headers and logs; else a new one."""
    given: list[bytes] = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(given) == 1 and _SANE_ID.fullmatch(given[0]):
        return given[0].decode()
    return secrets.token_hex(12)


def _count(scope: Scope, status: int, seconds: float) -> None:
    # Labels are bounded: a route by its pattern, a method by the list.
    route = scope.get("callboard.route", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    HTTP_REQUESTS.labels(route, method, str(status)).inc()
    HTTP_REQUEST_SECONDS.labels(route, method).observe(seconds)
