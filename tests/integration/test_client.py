"""Both clients against the real API."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard.client import OLDEST, ApiUnreachable, AsyncClient, Client, Event, RequestRefused
from callboard.errors import WaitTimeout
from callboard.records import State
from callboard.storage.connection import Connection
from callboard_api.streams import cursor
from tests.support.ports import free_port
from tests.support.served_api import KEY, QUEUE, PlayedWorker, served_api
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api") / "api.log"


@pytest.fixture(scope="module")
def shared(redis_url: str) -> str:
    import uuid

    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def connection(redis_url: str, shared: str) -> Iterator[Connection]:
    connection = Connection(redis_url, namespace=shared)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def worker(connection: Connection) -> PlayedWorker:
    return PlayedWorker(connection)


@pytest.fixture(scope="module")
def url(redis_url: str, shared: str, worker: PlayedWorker, log: Path) -> Iterator[str]:
    with served_api(redis_url, shared, log) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, KEY) as client:
        yield client


class Awaiting:
    """An AsyncClient that looks like a Client, so that one test holds for both."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(url, KEY)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            async def awaited() -> Any:
                answer: Awaitable[Any] = method(*args, **options)
                return await answer

            return self._runner.run(awaited())

        return call

    def done(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=["blocking", "awaited"])
def either(request: pytest.FixtureRequest, url: str) -> Iterator[Any]:
    if request.param == "blocking":
        with Client(url, KEY) as client:
            yield client
    else:
        awaiting = Awaiting(url)
        yield awaiting
        awaiting.done()


def test_a_tasks_life(either: Any, worker: PlayedWorker) -> None:
    task = either.submit("build", {"month": "2026-11"}, tags=["nightly"], priority=1, max_attempts=2)
    assert (task.state, task.queue, task.tags, task.priority, task.max_attempts) == (
        State.QUEUED, QUEUE, ("nightly",), 1, 2,
    )  # fmt: skip
    assert not task.ended
    assert worker.claim() == [task.id]
    worker.note(task.id, "one", "two", progress=b'{"current": 1, "total": 4, "message": "rows"}')
    running = either.task(task.id)
    assert running.state is State.RUNNING
    assert (running.progress.percent, running.progress.message) == (25, "rows")
    assert [line.message for line in either.logs(task.id).items] == ["one", "two"]
    assert [line.message for line in either.logs(task.id, after=1).items] == ["two"]
    assert either.cancel(task.id).cancel_requested_at is not None
    worker.complete(task.id)
    done = either.wait(task.id, 10)
    assert (done.state, done.result, done.attempts[0].outcome) == (State.COMPLETED, {"rows": 3}, "completed")
    again = either.resubmit(task.id, {"month": "2026-12"})
    assert again.resubmitted_from == task.id
    assert either.cancel(again.id).state is State.CANCELLED
    assert either.retry(again.id).state is State.QUEUED
    assert either.cancel(again.id, terminate=True).state is State.CANCELLED
    either.delete(again.id)
    with pytest.raises(RequestRefused) as refused:
        either.task(again.id)
    assert (refused.value.status, refused.value.code) == (404, "not-found")
    either.purge(QUEUE, State.COMPLETED)


def test_lists(either: Any, worker: PlayedWorker) -> None:
    items = either.submit_batch([{"name": "build", "payload": {"month": f"{n}"}} for n in range(205)])
    assert [item.index for item in items] == list(range(205))
    page = either.tasks(states=[State.QUEUED], queue=QUEUE, limit=203, include=["payload"])
    assert [task.id for task in page.items] == [item.id for item in reversed(items)][:203]
    assert page.items[0].payload == {"month": "204"}
    rest = either.tasks(states=["queued"], cursor=page.next_cursor)
    assert [task.id for task in rest.items] == [items[1].id, items[0].id]
    assert rest.items[0].payload is None
    assert either.queue(QUEUE).depth[State.QUEUED] == 205
    assert [queue.name for queue in either.queues() if queue.paused] == []
    either.pause(QUEUE)
    assert either.queue(QUEUE).paused
    either.resume(QUEUE)
    assert either.purge(QUEUE, "queued")["purged"] == 205
    [found] = either.workers()
    assert (found.id, found.queues, found.slots, found.version) == ("played", (QUEUE,), 4, "1.2.3")
    names = {entry.name: entry for entry in either.catalog()}
    assert names["build"].queue == QUEUE
    assert names["build"].payload_schema["required"] == ["month"]
    assert either.ready()


def test_a_wait_runs_out_or_is_woken(either: Any, worker: PlayedWorker) -> None:
    task = either.submit("build", {"month": "2026-11"})
    with pytest.raises(WaitTimeout, match="is queued and goes on"):
        either.wait(task.id, 0.01)
    [claimed] = worker.claim()
    timer = threading.Timer(0.2, worker.fail, [claimed])
    timer.start()
    failed = either.wait(task.id, 20)
    timer.join()
    assert (failed.state, failed.reason, failed.error.type) == (State.FAILED, "permanent", "ValueError")
    either.purge(QUEUE, "failed")


def test_refusals(either: Any) -> None:
    with pytest.raises(RequestRefused, match="Did you mean 'build'") as refused:
        either.submit("biuld", {"month": "2026-11"})
    assert refused.value.status == 422
    with pytest.raises(RequestRefused) as refused:
        either.submit("build", {"month": 7})
    assert [fault.pointer for fault in refused.value.problems] == ["#/payload/month"]
    with pytest.raises(RequestRefused) as refused:
        either.task("no such id")
    assert refused.value.status == 404


def test_a_bad_key(url: str) -> None:
    for key in (None, "cb_wrong_wrong_wrong"):
        with Client(url, key) as client, pytest.raises(RequestRefused) as refused:
            client.queues()
        assert refused.value.code == "unauthorized"


def test_nobody_there() -> None:
    port = free_port()
    with Client(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(ApiUnreachable, match="refused"):
            client.queues()
        with pytest.raises(ApiUnreachable), client.events():
            pass
        assert not client.ready()


def test_the_cursor_of_one_who_has_seen_nothing() -> None:
    assert cursor.decode(OLDEST) == {}
    assert cursor.encode({}) == OLDEST


def test_kept_events_and_where_to_go_on(client: Client, worker: PlayedWorker) -> None:
    task = client.submit("build", {"month": "2026-11"})
    client.cancel(task.id)
    with client.events(queue=QUEUE, after=OLDEST, idle_seconds=1) as stream:
        found = [event for event in stream if event.id == task.id]
    assert [event.type for event in found] == ["task.submitted", "task.cancelled"]
    assert found[0].name == "build"
    with client.events(after=found[0].cursor, idle_seconds=1) as stream:
        assert [event.type for event in stream] == ["task.cancelled"]


def test_a_task_followed_to_its_end(client: Client, worker: PlayedWorker) -> None:
    task = client.submit("build", {"month": "2026-11"})
    with client.task_events(task.id) as stream:
        worker.claim()
        worker.complete(task.id)
        types = [event.type for event in stream]
    assert types[0] == "task.snapshot"
    assert types[-1] == "task.completed"
    with client.task_events(task.id, after=stream.cursor) as ended:
        assert list(ended) == []


async def test_a_task_followed_by_the_loop(url: str, worker: PlayedWorker) -> None:
    async with AsyncClient(url, KEY) as client:
        task = await client.submit("build", {"month": "2026-11"})
        async with client.task_events(task.id) as stream:
            worker.claim()
            worker.complete(task.id)
            types = [event.type async for event in stream]
    assert types[-1] == "task.completed"


def test_a_stream_survives_a_restart_of_the_api(
    redis_url: str, shared: str, worker: PlayedWorker, tmp_path: Path
) -> None:
    port = free_port()
    heard: list[Event] = []
    with Client(f"http://127.0.0.1:{port}", KEY) as client:
        with served_api(redis_url, shared, tmp_path / "first.log", port=port):
            stream = client.events(queue=QUEUE)
            stream.__enter__()
            reader = threading.Thread(target=lambda: heard.extend(_until(stream, "task.cancelled")))
            reader.start()
            task = client.submit("build", {"month": "2026-11"})
            wait_until(lambda: stream.cursor, 30, "the first event")
        # While nobody serves, the task goes on.
        [claimed] = worker.claim()
        with served_api(redis_url, shared, tmp_path / "second.log", port=port):
            client.cancel(task.id)
            worker._end(claimed, "cancelled", "cancelled", b"{}")
            reader.join(30)
    assert not reader.is_alive()
    types = [event.type for event in heard if event.id == task.id]
    assert types == ["task.submitted", "task.started", "task.cancelled"]


def _until(stream: Any, kind: str) -> Iterator[Event]:
    for event in stream:
        yield event
        if event.type == kind:
            return
