"""Dramatiq's `notify_shutdown` on our worker: bodies in processes and on the event loop hear of its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq import Middleware

from callboard import inspector
from callboard.broker.broker import CallboardBroker
from callboard.broker.message import HeldMessage
from callboard.records.record import TaskRecord
from callboard.storage.connection import Connection
from callboard.submit import Submission, submit
from callboard_worker.hooks import hears_shutdown
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess

PROGRAM = """
import asyncio, pathlib, time
import dramatiq
from dramatiq.middleware import Shutdown
from callboard import Queue
from callboard.broker.broker import CallboardBroker

dramatiq.set_broker(CallboardBroker())
Queue("boxes", isolation="process")
Queue("loop", isolation="loop")
HERE = pathlib.Path(__file__).parent
ASKS = dict(queue_name="boxes", notify_shutdown=True, max_retries=3, min_backoff=60_000)


def wait(name, seconds):
    (HERE / f"{name}.running").touch()
    for _ in range(int(seconds * 100)):
        time.sleep(0.01)


async def await_end(name):
    (HERE / f"{name}.running").touch()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        (HERE / f"{name}.told").touch()
        raise


@dramatiq.actor(**ASKS)
def tidy():
    try:
        wait("tidy", 60)
    except Shutdown:
        (HERE / "tidy.told").touch()
        raise


@dramatiq.actor(**ASKS)
def stays():
    try:
        wait("stays", 60)
    except Shutdown:
        return "done all the same"


@dramatiq.actor(**ASKS)
async def coroutine():
    await await_end("coroutine")


@dramatiq.actor(queue_name="boxes", max_retries=3)
def deaf():
    wait("deaf", 1.5)


@dramatiq.actor(queue_name="loop", notify_shutdown=True, max_retries=3, min_backoff=60_000)
async def looped():
    await await_end("looped")


@dramatiq.actor(queue_name="loop", max_retries=3)
async def patient():
    (HERE / "patient.running").touch()
    await asyncio.sleep(1.5)
"""
NAMES = ("tidy", "stays", "coroutine", "deaf", "looped", "patient")


@pytest.fixture
def worker(redis_url: str, namespace: str, tmp_path: Path) -> Iterator[ServiceProcess]:
    module = tmp_path / "program.py"
    module.write_text(PROGRAM)
    made = ServiceProcess(
        "callboard_worker",
        tmp_path / "worker.log",
        redis_url,
        namespace,
        MODULES=module,
        WORKER_SLOTS=4,
        WORKER_DRAIN_SECONDS=20,
    )
    yield made
    made.close()


def test_actors_that_ask_for_it_hear_of_the_workers_end(
    worker: ServiceProcess, redis_url: str, namespace: str, tmp_path: Path
) -> None:
    worker.ready()
    connection = Connection(redis_url, namespace=namespace)
    wanted = [
        Submission(name=name, queue="loop" if name in ("looped", "patient") else "boxes") for name in NAMES
    ]
    ids = [answer.id for answer in connection.run(submit(connection.keys, wanted))]
    wait_until(lambda: all((tmp_path / f"{name}.running").exists() for name in NAMES), 30, "six bodies")
    worker.term()
    assert worker.wait(30) == 0, worker.said

    def ended(task_id: str) -> TaskRecord:
        record = connection.run(inspector.get(connection.keys, task_id))
        assert record is not None
        return record

    records = dict(zip(NAMES, map(ended, ids), strict=True))
    for name in ("tidy", "coroutine", "looped"):
        record = records[name]
        assert (record.state, record.reason) == ("pending", "backoff"), worker.said
        assert (tmp_path / f"{name}.told").exists()
        assert [attempt.error["type"] for attempt in record.attempts if attempt.error] == ["Shutdown"]
    for name in ("stays", "deaf", "patient"):
        assert records[name].state == "completed", worker.said
    assert {record.interruptions for record in records.values()} == {()}
    connection.close()


@pytest.mark.parametrize("listens", [True, False])
def test_who_hears_of_it(redis_url: str, namespace: str, listens: bool) -> None:
    """Those who ask for it, where Dramatiq's middleware is."""
    middleware: list[Middleware] | None = None if listens else []
    broker = CallboardBroker(redis_url, namespace=namespace, middleware=middleware)
    asking: dict[str, bool] = {"notify_shutdown": True} if listens else {}

    actor: Any = dramatiq.actor
    asks = actor(lambda: None, broker=broker, actor_name="asks", **asking)
    plain = actor(lambda: None, broker=broker, actor_name="plain")

    def held(of: Any) -> HeldMessage:
        return HeldMessage(of.message(), "local", "token")

    assert hears_shutdown(broker, held(asks)) is listens
    assert not hears_shutdown(broker, held(plain))
    broker.close()
