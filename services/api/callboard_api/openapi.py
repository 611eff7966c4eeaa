"""openapi.json (OpenAPI 3.1) and the page /docs, both built from the table of endpoints."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from callboard import __version__
from callboard_api.answers import encode
from callboard_api.problems import KINDS, MEDIA_TYPE
from callboard_api.routing import EVENTS, HTML, JSON, Endpoint, Parameter
from callboard_api.schemas.resources import SCHEMAS

#: What any route may answer, and what routes with a key, a query or a body may.
_ANYWHERE: Final = ("not-acceptable", "forbidden-host", "forbidden-origin", "internal", "store-unavailable")
_WITH_KEY: Final = ("unauthorized", "forbidden")
_WITH_BODY: Final = (
    "invalid-json",
    "payload-too-large",
    "unsupported-media-type",
    "invalid-body",
    "not-supported-yet",
)

_ABOUT: Final = (
    "Submit tasks, watch them run, steer queues. Times are RFC 3339 in UTC with milliseconds; fields ending "
    "in `_seconds` are numbers, in `_ms` integers; ids are opaque. Unknown fields and parameters "
    "are refused with 422, so a typing error never passes silently. Errors are RFC 9457 problems with a "
    "stable `code`. Every answer carries `X-Request-Id`."
)


def document(table: Sequence[Endpoint]) -> bytes:
    """openapi.json."""
    return encode(describe(table))


def describe(table: Sequence[Endpoint]) -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in table:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Callboard",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": group} for group in dict.fromkeys(endpoint.group for endpoint in table)],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": dict(SCHEMAS),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The admin key. Without one the API serves its own machine alone.",
                }
            },
        },
    }


def problems_of(endpoint: Endpoint) -> list[str]:
    """Every code that a route may answer with."""
    codes = [*endpoint.problems, *_ANYWHERE]
    if endpoint.scope is not None:
        codes += _WITH_KEY
    codes.append("invalid-query")
    if endpoint.body is not None:
        codes += _WITH_BODY
    return sorted(set(codes), key=lambda code: (KINDS[code].status, code))


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "tags": [endpoint.group],
        "summary": endpoint.summary,
        "responses": _responses(endpoint),
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]
    parameters += [_parameter(parameter, "query") for parameter in endpoint.query]
    parameters += [_parameter(parameter, "header") for parameter in endpoint.headers]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": endpoint.body.required,
            "description": f"At most {endpoint.body.limit:,} bytes.",
            "content": {JSON: {"schema": _ref(endpoint.body.schema)}},
        }
    if endpoint.scope is None:
        operation["security"] = []
    return operation


def _parameter(parameter: Parameter, place: str) -> dict[str, Any]:
    schema: Mapping[str, Any] = parameter.schema
    if parameter.many:
        schema = {"type": "array", "items": dict(schema)}
    return {"name": parameter.name, "in": place, "description": parameter.description, "schema": dict(schema)}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, outcome in endpoint.outcomes.items():
        response: dict[str, Any] = {"description": outcome.description}
        if outcome.headers:
            response["headers"] = {
                name: {"description": told, "schema": {"type": "string"}}
                for name, told in outcome.headers.items()
            }
        media = endpoint.media_type.partition(";")[0]
        if outcome.schema is not None and endpoint.media_type == EVENTS:
            # OpenAPI 3.1 cannot describe a stream's items; the schema of their data is named instead.
            response["content"] = {
                media: {"schema": {"type": "string"}, "x-event-data": _ref(outcome.schema)}
            }
        elif outcome.schema is not None:
            response["content"] = {media: {"schema": _ref(outcome.schema)}}
        elif endpoint.media_type == HTML:
            response["content"] = {media: {"schema": {"type": "string"}}}
        elif status == 200:
            response["content"] = {media: {"schema": {"type": "object"}}}
        responses[str(status)] = response
    by_status: dict[int, list[str]] = {}
    for code in problems_of(endpoint):
        by_status.setdefault(KINDS[code].status, []).append(code)
    for status, codes in by_status.items():
        responses[str(status)] = {
            "description": ", ".join(f"`{code}`" for code in codes),
            "content": {MEDIA_TYPE: {"schema": _ref("Problem")}},
        }
    return responses


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_STYLE: Final = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem 1rem 4rem}
h2{margin-top:2.5rem;border-bottom:1px solid;text-transform:capitalize}
section{margin:1.5rem 0;padding-left:1rem;border-left:3px solid #8886}
h3{font-size:1rem;margin:0}h3 code{font-size:1.05rem}
.get{color:#1b6ec2}.post{color:#187a3c}.delete{color:#b3261e}
@media(prefers-color-scheme:dark){.get{color:#7db9f5}.post{color:#7cd39a}.delete{color:#f2938c}}
table{border-collapse:collapse;margin:.5rem 0;width:100%}
td{padding:.15rem .8rem .15rem 0;vertical-align:top}td:first-child{white-space:nowrap;width:12rem}
pre{overflow-x:auto;padding:.8rem;background:#8881;font-size:.85rem}
nav a{margin-right:1rem}a{color:inherit}
"""


def page(table: Sequence[Endpoint]) -> bytes:
    """/docs: the same as one page, without scripts and without anything from elsewhere."""
    groups = list(dict.fromkeys(endpoint.group for endpoint in table))
    links = "".join(f'<a href="#{group}">{group}</a>' for group in [*groups, "schemas"])
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>Callboard API</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>Callboard API {html.escape(__version__)}</h1><p>{_prose(_ABOUT)}</p>",
        f'<p><a href="/openapi.json">openapi.json</a></p><nav aria-label="Groups">{links}</nav>',
    ]
    for group in groups:
        parts.append(f'<h2 id="{group}">{group}</h2>')
        parts += [_section(endpoint) for endpoint in table if endpoint.group == group]
    parts.append('<h2 id="schemas">schemas</h2>')
    for name, schema in SCHEMAS.items():
        text = html.escape(json.dumps(schema, indent=2, ensure_ascii=False))
        parts.append(
            f'<section id="schema-{name}"><h3>{name}</h3><details><summary>JSON Schema</summary>'
            f"<pre>{text}</pre></details></section>"
        )
    parts.append("</main></body></html>\n")
    return "".join(parts).encode()


def _section(endpoint: Endpoint) -> str:
    method = endpoint.method.lower()
    rows = [(f"<code>{p.name}</code>", f"query: {_prose(p.description)}") for p in endpoint.query]
    rows += [(f"<code>{p.name}</code>", f"header: {_prose(p.description)}") for p in endpoint.headers]
    if endpoint.body is not None:
        need = "" if endpoint.body.required else " (may be left out)"
        rows.append(("body", _link(endpoint.body.schema) + need))
    for status, outcome in endpoint.outcomes.items():
        shape = f" {_link(outcome.schema)}" if outcome.schema else ""
        rows.append((str(status), _prose(outcome.description) + shape))
    told = ", ".join(f"<code>{code}</code>" for code in problems_of(endpoint))
    rows.append(("problems", told))
    table = "".join(f"<tr><td>{name}</td><td>{text}</td></tr>" for name, text in rows)
    scope = f"Scope: <code>{endpoint.scope}</code>." if endpoint.scope else "Open to everybody."
    about = _prose(" ".join(filter(None, (f"{endpoint.summary}.", endpoint.description))))
    return (
        f'<section id="{endpoint.handler.__name__}"><h3><span class="{method}">{endpoint.method}</span> '
        f"<code>{html.escape(endpoint.path)}</code></h3><p>{about} {scope}</p>"
        f"<table>{table}</table></section>"
    )


def _prose(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _link(schema: str) -> str:
    return f'<a href="#schema-{schema}">{schema}</a>'
