"""Routing: one table of endpoints, from which requests are dispatched and openapi.json is built."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from callboard_api.answers import Answer
from callboard_api.auth import ADMIN, Principal, ScopeName
from callboard_api.platform import Platform
from callboard_api.problems import Rejected
from callboard_api.schemas import body as bodies
from callboard_api.schemas.query import Query
from callboard_api.weights import weights

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
HTML: Final = "text/html; charset=utf-8"


@dataclass(slots=True)
class Call:
    """One request, as a handler gets it. `body`: parsed JSON, None where there was none."""

    platform: Platform
    scope: Scope
    principal: Principal
    query: Query
    body: Any = None

    def path(self, name: str) -> str:
        """A part of the path."""
        return str(self.scope["path_params"][name])

    def header(self, name: bytes) -> str:
        """All values of a header, joined as RFC 9110 says; "" without one."""
        return ", ".join(v.decode("latin-1") for n, v in self.scope["headers"] if n == name)


Handler = Callable[[Call], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or request header. `many`: it may be given several times."""

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    many: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON body. `schema` names a component of openapi.json; `required`: it may not be left out."""

    schema: str
    limit: int = bodies.SINGLE_BYTES
    required: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """A documented answer. `schema` names a component, None for none."""

    description: str
    schema: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method on a path. `scope` None: open to everybody. `problems`: codes beyond those of every route."""

    method: str
    path: str
    handler: Handler
    group: str
    summary: str
    scope: ScopeName | None
    outcomes: Mapping[int, Outcome]
    description: str = ""
    query: Sequence[Parameter] = ()
    headers: Sequence[Parameter] = ()
    body: Body | None = None
    problems: Sequence[str] = ()
    media_type: str = JSON


class Dispatcher:
    """The ASGI application of one path: by method, after what every request has to pass."""

    def __init__(self, platform: Platform, endpoints: Sequence[Endpoint]) -> None:
        self._platform = platform
        self._endpoints = {endpoint.method: endpoint for endpoint in endpoints}
        self._known = {
            endpoint.method: {parameter.name: parameter.many for parameter in endpoint.query}
            for endpoint in endpoints
        }
        if "GET" in self._endpoints:
            self._endpoints["HEAD"] = self._endpoints["GET"]
            self._known["HEAD"] = self._known["GET"]
        self._allow = ", ".join(sorted({*self._endpoints, "OPTIONS"}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        endpoint = self._endpoints.get(method)
        if endpoint is None:
            if method == "OPTIONS":
                await Answer(status=204, headers={"Allow": self._allow})(scope, receive, send)
                return
            raise Rejected(
                "method-not-allowed",
                f"{method[:20]} is not possible here; {self._allow} are.",
                headers={"Allow": self._allow},
            )
        scope["callboard.route"] = endpoint.path
        principal = ADMIN
        if endpoint.scope is not None:
            principal = self._platform.guard.principal(scope)
            principal.require(endpoint.scope)
        check_accept(scope, endpoint.media_type)
        call = Call(self._platform, scope, principal, Query(scope["query_string"], self._known[method]))
        if endpoint.body is not None:
            call.body = await _body(scope, receive, endpoint.body)
        if method == "POST" and call.header(b"idempotency-key"):
            raise Rejected("not-supported-yet", "The header Idempotency-Key is not supported yet.")
        answer = await endpoint.handler(call)
        await answer(scope, receive, send)


def routes(platform: Platform, table: Sequence[Endpoint]) -> list[Route]:
    """Starlette's routes of a table, one for each path; fixed paths before those with parameters."""
    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in table:
        by_path.setdefault(endpoint.path, []).append(endpoint)
    paths = sorted(by_path, key=lambda path: "{" in path)
    return [Route(path, Dispatcher(platform, by_path[path]), name=path) for path in paths]


def check_accept(scope: Scope, media_type: str) -> None:
    """Raises Rejected (406) when the client takes nothing that this route gives. No header takes all."""
    given = [value for name, value in scope["headers"] if name == b"accept"]
    if not given or given == [b"*/*"]:
        return
    wanted = media_type.partition(";")[0]
    best = weights(given)
    for media in (wanted, f"{wanted.partition('/')[0]}/*", "*/*"):
        if media in best:
            if best[media] > 0:
                return
            break
    raise Rejected("not-acceptable", f"This route answers with {wanted}.")


async def _body(scope: Scope, receive: Receive, expected: Body) -> Any:
    raw = await bodies.read(scope, receive, expected.limit)
    empty = not raw.strip()
    bodies.check_type(scope, empty=empty and not expected.required)
    if empty:
        if expected.required:
            raise Rejected("invalid-json", "The body is empty; expected a JSON object.")
        return None
    return await bodies.parse(raw)
