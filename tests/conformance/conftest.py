"""Dramatiq's own tests on our broker, twice: with its worker, and with our runner and thread slots.

The tests come from Dramatiq's source distribution (`source`), their fixtures and `common` module from here.
`left_out.toml` says which of them do not run, and why.
"""

from __future__ import annotations

import dis
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.rate_limits import backends as limiters
from dramatiq.results import backends as results

import callboard
from callboard.broker.broker import CallboardBroker
from callboard.records.record import TaskRecord
from callboard.storage import default
from tests.conformance import hosts, source
from tests.conformance.face import StubFace, keeping_exceptions
from tests.conformance.suite import OF_THE_CLI, PACKAGE, Suite
from tests.support.board import Board

#: For what their backends keep under names of their own.
_THEIR_DATABASE = 9
_THREADS = 16


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.name == "left_out.toml":
        suite: pytest.Collector = Suite.from_parent(parent, path=file_path)
        return suite
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Twice for what starts a worker, by fixture or by `with worker(…)`."""
    if any(mark.args[0] == "host" for mark in metafunc.definition.iter_markers("parametrize")):
        return
    starts = {"stub_worker", "redis_worker"} & set(metafunc.fixturenames)
    if starts or any(
        step.opname == "LOAD_GLOBAL" and step.argval == "worker"
        for step in dis.get_instructions(metafunc.function)
    ):
        metafunc.parametrize("host", hosts.NAMES, indirect=True)


@pytest.fixture(autouse=True)
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The form of worker: `worker` (Dramatiq's) or `runner` (ours)."""
    name: str = getattr(request, "param", "worker")
    hosts.choose(name)
    # After a pause its consumers come back after 3 s.
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
    return name


def _serve(broker: Any) -> Iterator[Any]:
    former = dramatiq.broker.global_broker
    hosts.boot(broker)
    dramatiq.set_broker(broker)
    yield broker
    broker.flush_all()
    broker.close()
    dramatiq.broker.global_broker = former


@pytest.fixture
def stub_broker(host: str, redis_url: str, namespace: str) -> Iterator[StubFace]:
    """Our broker where their tests use one that lives in memory."""
    with keeping_exceptions():
        yield from _serve(StubFace(url=redis_url, namespace=namespace))


@pytest.fixture
def redis_broker(host: str, redis_url: str, namespace: str) -> Iterator[CallboardBroker]:
    """Our broker as it is."""
    yield from _serve(CallboardBroker(redis_url, namespace=namespace))


def _work(broker: Any) -> Iterator[Any]:
    worker = hosts.chosen(broker, worker_timeout=100, worker_threads=_THREADS)
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def stub_worker(stub_broker: StubFace) -> Iterator[Any]:
    """A running worker of `stub_broker`."""
    yield from _work(stub_broker)


@pytest.fixture
def redis_worker(redis_broker: CallboardBroker) -> Iterator[Any]:
    """A running worker of `redis_broker`."""
    yield from _work(redis_broker)


@pytest.fixture
def record(redis_broker: CallboardBroker) -> Callable[[Any], TaskRecord]:
    """The record of a message."""
    board = Board(redis_broker.connection)
    return lambda message: board.record(redis_broker.task_id(message))


@pytest.fixture
def start_cli(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts Dramatiq's CLI on one of their modules, `tests.…:broker`; ended at the end."""
    folder = source.fetch().parent
    # Its reload looks for python on the PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    here = {"CALLBOARD_REDIS_URL": redis_url, "CALLBOARD_NAMESPACE": namespace}
    environment = {**os.environ, **here, "PATH": path, "dramatiq_worker_timeout": "100"}
    monkeypatch.chdir(folder)
    callboard.configure(redis_url, namespace=namespace)
    connection = default.connection()
    for name in OF_THE_CLI:
        for thing in vars(sys.modules[f"{PACKAGE}.{name}"]).values():
            if isinstance(thing, CallboardBroker):
                monkeypatch.setattr(thing, "_connection", connection)
    started: list[subprocess.Popen[bytes]] = []

    def start(broker: str, *, extra_args: Sequence[str] = (), **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dramatiq", broker, *extra_args]
        started.append(subprocess.Popen(command, cwd=folder, env=environment, **options))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    connection.close()


@pytest.fixture
def _redis_client(redis_url: str) -> Iterator[Any]:
    # Their blocking reads last longer than redis-py 8 waits for any answer.
    client = redis.Redis.from_url(redis_url, db=_THEIR_DATABASE, socket_timeout=None)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture(params=["redis", "stub"])
def rate_limiter_backend(request: pytest.FixtureRequest, _redis_client: Any) -> Any:
    """Dramatiq's stores of rate limits."""
    if request.param == "stub":
        return limiters.StubBackend()
    return limiters.RedisBackend(client=_redis_client)


@pytest.fixture
def redis_result_backend(_redis_client: Any) -> Any:
    """Dramatiq's store of results in Redis."""
    return results.RedisBackend(client=_redis_client)


@pytest.fixture(params=["redis", "stub"])
def result_backend(request: pytest.FixtureRequest, redis_result_backend: Any) -> Any:
    """Dramatiq's stores of results."""
    return results.StubBackend() if request.param == "stub" else redis_result_backend
