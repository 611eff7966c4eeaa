"""docs/kubernetes/sizing.md: the connections that it counts are those that a real server counts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.submit import Submission, submit
from callboard_api import store
from tests.docs.page import PAGES, rows
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess

SECTION = PAGES["docs/kubernetes/sizing.md"].section("Connections to Redis")
TOLD = dict(row[:2] for row in rows(SECTION))
QUEUES = ("q0", "q1", "q2")
_WATCH_SECONDS = 6.0


def number(pattern: str, process: str) -> int:
    found = re.search(pattern, TOLD[process])
    assert found is not None, TOLD[process]
    return int(found[1])


class Census:
    """Counts a server's connections, without those that were there before."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._before = {row["id"] for row in self._client.client_list()}

    def count(self) -> int:
        return sum(row["id"] not in self._before for row in self._client.client_list())

    def most(self, going_on: Callable[[float], bool]) -> int:
        """The most that there were while `going_on`, which is asked with the seconds so far."""
        began = time.monotonic()
        most = 0
        while going_on(time.monotonic() - began):
            most = max(most, self.count())
            time.sleep(0.02)
        return most

    def close(self) -> None:
        self._client.close()


@contextmanager
def counted(url: str, service: Callable[[], ServiceProcess]) -> Iterator[tuple[Census, ServiceProcess]]:
    """A service that has been started, and the census of its connections."""
    census = Census(url)
    process = service()
    try:
        yield census, process
    finally:
        process.close()
        census.close()


def a_while(seconds: float) -> bool:
    return seconds < _WATCH_SECONDS


@pytest.fixture
def server(start_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    """One that nobody else has connections to, with 100 tasks for each queue."""
    started = start_server()
    connection = Connection(started.url)
    for queue in QUEUES:
        many = [Submission(name=f"body_{queue}", queue=queue, payload={}) for _ in range(100)]
        connection.run(submit(connection.keys, many))
    connection.close()
    return started


def test_a_worker(server: EmbeddedServer, tmp_path: Path) -> None:
    bodies = (f"@task(queue={queue!r})\ndef body_{queue}() -> None:\n    pass\n" for queue in QUEUES)
    module = tmp_path / "tasks.py"
    module.write_text("\n".join(["from callboard import task\n", *bodies]), encoding="utf-8")

    def worker() -> ServiceProcess:
        log = tmp_path / "worker.log"
        return ServiceProcess("callboard_worker", log, server.url, "cb", MODULES=module, WORKER_SLOTS=4)

    with counted(server.url, worker) as (census, process):
        process.ready()
        most = census.most(a_while)
    told = len(QUEUES) + 1 + number(r"and (\d+) more", "worker")
    assert most <= told
    assert most >= told - 1, "the page says far too many"


def test_a_scheduler(server: EmbeddedServer, tmp_path: Path) -> None:
    def scheduler() -> ServiceProcess:
        return ServiceProcess("callboard_scheduler", tmp_path / "scheduler.log", server.url, "cb")

    with counted(server.url, scheduler) as (census, process):
        process.ready()
        most = census.most(a_while)
    told = number(r"^(\d+)$", "scheduler")
    # Its threads seldom speak to Redis at the same moment.
    assert told - 2 <= most <= told


def address_of(api: ServiceProcess) -> str | None:
    found = re.search(r"The API listens on (http://\S+)", api.said)
    return found[1] if found else None


def test_the_api(server: EmbeddedServer, tmp_path: Path) -> None:
    def api() -> ServiceProcess:
        return ServiceProcess("callboard_api", tmp_path / "api.log", server.url, "cb", API_PORT="0")

    busy = number(r"up to (\d+) while busy", "API")
    assert busy == store._AT_ONCE
    with counted(server.url, api) as (census, process), ThreadPoolExecutor(110) as clients:
        url = wait_until(lambda: address_of(process), 60, "the API listens")
        wait_until(lambda: httpx.get(f"{url}/readyz", trust_env=False).is_success, 60, "the API is ready")
        assert census.most(a_while) <= number(r"^(\d+) while idle", "API")

        def list_tasks() -> int:
            return httpx.get(f"{url}/v1/tasks?limit=200", timeout=60, trust_env=False).status_code

        def listen() -> None:
            with httpx.stream("GET", f"{url}/v1/events", timeout=60, trust_env=False) as reply:
                for _ in reply.iter_lines():
                    if done.done():
                        return

        done: Future[None] = Future()
        streams = [clients.submit(listen) for _ in range(10)]
        requests = [clients.submit(list_tasks) for _ in range(300)]
        most = census.most(lambda _: not all(request.done() for request in requests))
        done.set_result(None)
        assert {request.result() for request in requests} == {200}
        process.term()
        process.wait()
        for stream in streams:
            stream.exception(timeout=30)
    assert 2 < most <= busy + 2


def test_the_example() -> None:
    text = " ".join(SECTION.split())
    found = re.search(
        r"(\d+) workers of one queue each, (\d+) schedulers and (\d+) API pods need at most "
        r"\d+ × (\d+) \+ \d+ × (\d+) \+ \d+ × (\d+) = (\d+)\.",
        text,
    )
    assert found is not None
    workers, schedulers, apis, worker, scheduler, api, total = map(int, found.groups())
    assert worker == 1 + 1 + number(r"and (\d+) more", "worker")
    assert scheduler == number(r"^(\d+)$", "scheduler")
    assert api == number(r"up to (\d+) while busy", "API") + 2
    assert total == workers * worker + schedulers * scheduler + apis * api
