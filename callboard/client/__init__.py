"""The HTTP client: `Client` blocks, `AsyncClient` is awaited, both from one implementation.

with Client("http://127.0.0.1:8000") as client:
    task = client.submit("build", {"month": "2026-11"})
    print(client.wait(task.id, timeout_seconds=60).result)
"""

from callboard.errors import MissingExtra

try:
    import httpx as _httpx  # noqa: F401 - asked for here, so that its absence is one clear line
except ImportError as error:
    raise MissingExtra("cli", "httpx") from error

from callboard.client.awaited import AsyncClient, AsyncEventStream
from callboard.client.blocking import Client, EventStream
from callboard.client.faults import ApiUnreachable, RequestRefused
from callboard.client.operations import DEFAULT, OLDEST
from callboard.client.resources import (
    Attempt,
    BatchItem,
    CatalogEntry,
    Event,
    LogLine,
    LogPage,
    Queue,
    Scaling,
    Task,
    TaskError,
    TaskPage,
    Worker,
)

__all__ = [
    "DEFAULT",
    "OLDEST",
    "ApiUnreachable",
    "AsyncClient",
    "AsyncEventStream",
    "Attempt",
    "BatchItem",
    "CatalogEntry",
    "Client",
    "Event",
    "EventStream",
    "LogLine",
    "LogPage",
    "Queue",
    "RequestRefused",
    "Scaling",
    "Task",
    "TaskError",
    "TaskPage",
    "Worker",
]
