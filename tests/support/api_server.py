"""The API, served by real uvicorn on loopback in a thread of the test's process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from callboard import clock
from callboard import settings as settings_module
from callboard.broker import turn
from callboard.catalog import published
from callboard.catalog.contract import contract_of
from callboard.records import layout
from callboard.storage.connection import Connection
from callboard_api.app import create_app
from callboard_api.main import ApiServer, listen
from tests.support.waiting import wait_until


class Hand:
    """Plays a worker: claims tasks and ends them as a test wants."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tokens: dict[str, str] = {}

    def claim(self, queue: str = "sums", most: int = 1) -> list[str]:
        """Claim up to `most` tasks; their ids."""
        reply = self._turn(queue, want=most)
        self._tokens |= {f"{queue}_{claim.local}": claim.token for claim in reply.claims}
        return [f"{queue}_{claim.local}" for claim in reply.claims]

    def complete(self, task_id: str, result: Any = None) -> None:
        self._end(task_id, turn.completed, json.dumps(result).encode())

    def fail(self, task_id: str, message: str = "boom") -> None:
        error = turn.failure("ValueError", message, "Traceback: here", retryable=False)
        self._end(task_id, turn.failed, outcome="failed", reason="permanent", error=error)

    def cancelled(self, task_id: str) -> None:
        self._end(task_id, turn.cancelled, reason="cancelled", error=b"")

    def note(self, task_id: str, *, progress: Any = None, lines: list[str] | None = None) -> None:
        """Tell progress and log lines of a running task."""
        queue, _, local = task_id.rpartition("_")
        packed = [layout.log_line(clock.now_ms(), 1, "info", line) for line in lines or ()]
        told = turn.Notes(json.dumps(progress).encode() if progress else b"", 1 if progress else 0, 1, packed)
        operation = turn.note(self._connection.keys, queue, [(local, self._tokens[task_id], told)])
        assert self._connection.run(operation) == ["ok"]

    def _end(self, task_id: str, make: Any, *args: Any, **kwargs: Any) -> None:
        queue, _, local = task_id.rpartition("_")
        reply = self._turn(queue, endings=[make(local, self._tokens.pop(task_id), *args, **kwargs)])
        assert reply.answers == ["ok"]

    def _turn(self, queue: str, **what: Any) -> turn.TurnReply:
        operation = turn.turn(self._connection.keys, queue, "tests-1", nonce=uuid.uuid4().hex[:12], **what)
        return self._connection.run(operation)


class RunningApi:
    """A running API. `http`: a client of it; `hand`: moves tasks on without a worker; `url`: its address."""

    def __init__(self, redis_url: str, namespace: str, **env: str) -> None:
        self.settings = settings_module.load(
            {
                "CALLBOARD_REDIS_URL": redis_url,
                "CALLBOARD_NAMESPACE": namespace,
                "CALLBOARD_API_PORT": "0",
                **{f"CALLBOARD_{name}": value for name, value in env.items()},
            }
        )
        self.connection = Connection(redis_url, namespace=namespace, events_keep=self.settings.events_keep)
        self.hand = Hand(self.connection)
        self.app = create_app(self.settings)
        self._listener = listen(self.settings.api_host, self.settings.api_port)
        host, port = self._listener.getsockname()[:2]
        self.port = int(port)
        self.url = f"http://{host}:{port}"
        self.server = ApiServer(self.app)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, name="api", daemon=True)
        # Plain HTTP, so no test needs to read the certificates.
        self.http = httpx.Client(base_url=self.url, timeout=30, verify=False)

    @property
    def platform(self) -> Any:
        return self.app.state.platform

    def start(self) -> RunningApi:
        self._thread.start()
        wait_until(lambda: self.server.started, description="the API's start")
        return self

    def stop(self) -> None:
        """As SIGTERM does."""
        self.http.close()
        if self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self.server.stop)
        self._thread.join(15)
        assert not self._thread.is_alive(), "the API has not stopped"
        self.connection.close()

    def ask_to_stop(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.server.stop)

    def joined(self, timeout: float) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def call_in_loop(self, function: Any) -> Any:
        """What `function` gives when the API's own loop calls it."""
        assert self._loop is not None

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def submit(
        self, name: str = "add", payload: Mapping[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Submit over HTTP; the task as it was accepted."""
        body = {"name": name, "payload": {"a": 1, "b": 2} if payload is None else payload, **options}
        answer = self.http.post("/v1/tasks", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def task(self, task_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=self.server.config.get_loop_factory()) as runner:
            self._loop = runner.get_loop()
            runner.run(self.server.serve(sockets=[self._listener]))


@contextmanager
def running_api(
    redis_url: str,
    namespace: str = "",
    *,
    prepare: Callable[[Connection], None] | None = None,
    **env: str,
) -> Iterator[RunningApi]:
    """An API on this Redis; before it starts, `prepare` is called, by default to publish `declared`.

    `env`: settings by their short names.
    """
    api = RunningApi(redis_url, namespace or f"t{uuid.uuid4().hex[:12]}", **env)
    try:
        (prepare or publish)(api.connection)
        yield api.start()
    finally:
        api.stop()


def running_task(api: RunningApi, **options: Any) -> str:
    """Submit a task, which a worker then has; its id."""
    task = api.submit(priority=0, **options)
    [claimed] = api.hand.claim()
    assert claimed == task["id"]
    return claimed


def listening(api: RunningApi) -> int:
    """How many event streams are open."""
    listeners: int = api.call_in_loop(lambda: len(api.platform.hub._listeners))
    return listeners


def publish(connection: Connection) -> None:
    """Publish what `declared` has, as a worker does at its start."""
    connection.run(published.publish(connection.keys, declared(), ["sums", "mail"], "tests-1"))


def declared() -> list[Any]:
    """Contracts of a few tasks; nobody runs them."""

    def add(a: int, b: int = 0) -> int:
        """Add two numbers."""
        return a + b

    def send(to: str, subject: str = "", copies: list[str] | None = None) -> None:
        """Send a mail."""

    def anything(**fields: Any) -> None:
        """Take any payload."""

    def endless() -> None:
        """Is tried for ever."""

    return [
        contract_of(add, name="add", queue="sums", tags=["maths"]),
        contract_of(send, name="mail.send", queue="mail", priority=2, retries=1, expires_in=3600),
        contract_of(anything, name="anything", queue="sums"),
        contract_of(endless, name="endless", queue="sums", retries=None),
    ]


def raw(api: RunningApi, request: str, *, hang_up: bool = True) -> str:
    """The answer to a request as it stands; `{host}` is the right Host. `hang_up`: nothing more is sent."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as connection:
        text = request.replace("{host}", f"127.0.0.1:{api.port}").replace("\n", "\r\n")
        connection.sendall(text.encode())
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.decode()
