"""The application: every part of one API process, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

from callboard.catalog.app import discover
from callboard.errors import InvalidSetting
from callboard.settings import Settings
from callboard.storage.connection import AsyncConnection
from callboard.storage.embedded import address_in
from callboard_api.applications import hosted, refused
from callboard_api.edge import Edge
from callboard_api.openapi import document, page
from callboard_api.platform import Platform
from callboard_api.problems import Rejected
from callboard_api.pulse import Pulse
from callboard_api.routing import routes
from callboard_api.table import TABLE


def create_app(
    settings: Settings,
    connection: AsyncConnection | None = None,
    *,
    on_unfit: Callable[[str], None] | None = None,
) -> Starlette:
    """The API as an ASGI application; `app.state.platform` and `app.state.pulse` are its parts.

    connection: to its Redis; by default made from the settings, and always closed with the application.
    on_unfit: told when this Redis must not be used.

    Redis need not answer yet. Raises InvalidSetting: no Redis configured, no key on an address that others
    reach, an application that nobody installed; and InvalidDeclaration for an application's bad routes.
    """
    platform = Platform(settings, connection or connect(settings))
    platform.openapi = document(TABLE)
    platform.docs = page(TABLE)
    pulse = Pulse(platform, on_unfit)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        beside = [
            asyncio.create_task(pulse.run(), name="pulse"),
            asyncio.create_task(pulse.tick(), name="tick"),
        ]
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await platform.close()

    app = Starlette(
        routes=[*routes(platform, TABLE), *hosted(platform, discover(settings.apps))],
        exception_handlers={HTTPException: refused},
        middleware=[Middleware(Edge, platform=platform)],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.router.default = _no_route
    app.state.platform = platform
    app.state.pulse = pulse
    return app


def connect(settings: Settings) -> AsyncConnection:
    """The connection that the settings describe; nothing is sent yet. Raises InvalidSetting."""
    url = settings.redis_url or address_in(settings.data_dir)
    if url is None:
        raise InvalidSetting(
            "CALLBOARD_REDIS_URL is not set, and `callboard up` runs no server for this folder; "
            "the API needs one."
        )
    return AsyncConnection(url, namespace=settings.namespace, events_keep=settings.events_keep)


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise Rejected("not-found", "There is no such route; /openapi.json lists them.")
