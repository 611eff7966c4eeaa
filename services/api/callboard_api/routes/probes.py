"""Probes and descriptions: open to everybody."""

from __future__ import annotations

from starlette.types import ASGIApp

from callboard_api.answers import Answer
from callboard_api.problems import Rejected
from callboard_api.routing import HTML, Call

#: The page has no scripts and loads nothing.
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


async def livez(call: Call) -> ASGIApp:
    """GET /livez"""
    return Answer({"status": "alive"}, headers={"Cache-Control": "no-store"})


async def readyz(call: Call) -> ASGIApp:
    """GET /readyz"""
    if not await call.platform.ready():
        raise Rejected("store-unavailable", "Redis does not answer.")
    return Answer({"status": "ready"}, headers={"Cache-Control": "no-store"})


async def openapi(call: Call) -> ASGIApp:
    """GET /openapi.json"""
    return Answer(call.platform.openapi, headers={"Cache-Control": "no-cache"})


async def docs(call: Call) -> ASGIApp:
    """GET /docs"""
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _PAGE_POLICY}
    return Answer(call.platform.docs, headers=headers, media_type=HTML)
