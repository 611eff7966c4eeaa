"""The routes of applications: served at the paths that they name, behind the same key as the platform's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from callboard.catalog.app import App
from callboard.catalog.loading import ModuleFailed
from callboard.errors import InvalidDeclaration
from callboard.host import SCOPE, Host
from callboard_api.platform import Platform
from callboard_api.problems import Rejected
from callboard_api.schemas.body import SINGLE_BYTES, bounded

#: The platform's own, now or later.
_RESERVED: Final = ("/v1", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/dashboard", "/static")
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: What Starlette refuses by itself, in our words.
_PROBLEMS: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    409: "conflict-state",
    413: "payload-too-large",
    415: "unsupported-media-type",
    422: "invalid-body",
    429: "rate-limited",
}


def hosted(platform: Platform, apps: Iterable[App]) -> list[BaseRoute]:
    """The routes of `apps`, imported now.

    Raises ModuleFailed for what cannot be imported, and InvalidDeclaration for what names no list of
    Starlette's routes, for a path of the platform's own, and for one that two applications claim.
    """
    routes: list[BaseRoute] = []
    claimed: dict[str, str] = {}
    for app in apps:
        for path, route in _routes_of(app):
            other = claimed.setdefault(path, app.name)
            if other != app.name:
                raise InvalidDeclaration(
                    f"Applications {other!r} and {app.name!r} both serve the path {path!r}."
                )
            routes.append(_Hosted(platform, path, route))
    return routes


def _routes_of(app: App) -> Iterator[tuple[str, BaseRoute]]:
    try:
        found: Any = app.load_routes()
    except ModuleFailed as error:
        raise ModuleFailed(f"The routes of application {app.name!r} cannot be loaded. {error}") from None
    if found is None:
        return
    wrong = f"{app.place}: the routes of application {app.name!r}, {app.routes!r}"
    if not isinstance(found, Sequence) or not all(isinstance(route, BaseRoute) for route in found):
        raise InvalidDeclaration(f"{wrong}, must be a list of Starlette's routes; got {found!r:.200}.")
    for route in found:
        path = getattr(route, "path", None)
        # A Mount drops the slash of "/", which is everything.
        if not isinstance(path, str) or path in ("", "/"):
            raise InvalidDeclaration(f"{wrong}: each needs a path of its own below '/'; got {route!r}.")
        if any(path == own or path.startswith(f"{own}/") for own in _RESERVED):
            raise InvalidDeclaration(
                f"{wrong}: the path {path!r} is the platform's own. Taken are {', '.join(_RESERVED)}."
            )
        yield path, route


class _Hosted(BaseRoute):
    """A route of an application: asks for the key, bounds the body, and hands its endpoint a Host."""

    def __init__(self, platform: Platform, path: str, route: BaseRoute) -> None:
        self._platform = platform
        self._path = path
        self._route = route

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return self._route.matches(scope)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        return self._route.url_path_for(name, **path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        platform = self._platform
        scope["callboard.route"] = self._path
        principal = platform.guard.principal(scope)
        principal.require("read" if scope["method"] in _SAFE else "submit")
        scope[SCOPE] = Host(platform.keys, platform.limits, principal.owner, principal.sees, platform.run)
        await self._route.handle(scope, bounded(scope, receive, SINGLE_BYTES), send)


async def refused(request: Request, error: Exception) -> Response:
    """Starlette's own refusals as problems; what has no word of ours stays as it is."""
    assert isinstance(error, HTTPException)
    code = _PROBLEMS.get(error.status_code)
    if code is None:
        return Response(
            error.detail, error.status_code, headers=dict(error.headers or {}), media_type="text/plain"
        )
    raise Rejected(code, error.detail, headers=dict(error.headers or {}))
