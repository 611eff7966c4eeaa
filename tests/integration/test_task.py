"""Submitting tasks from Python, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import callboard
from callboard import Queue, task
from callboard.errors import Invalid, InvalidPayload, QueueFull, StoreUnavailable, WaitTimeout
from callboard.records import State
from callboard.storage import default
from callboard.storage.embedded import EmbeddedServer
from callboard.task import isolated_registry


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(default, "_options", None)
    monkeypatch.setattr(default, "_connection", None)
    with isolated_registry():
        yield
    if default._connection is not None:
        default._connection.close()


@pytest.fixture
def configured(redis_url: str, namespace: str) -> None:
    callboard.configure(url=redis_url, namespace=namespace)


@pytest.mark.usefixtures("configured")
def test_a_task_is_accepted_with_its_contracts_terms() -> None:
    @task(queue="reports", retries=5, tags=["nightly"], priority=2, expires_in=3600)
    def build(month: str, rows: int = 100) -> dict[str, Any]:
        return {}

    handle = build.submit(month="2026-11")
    record = handle.record()
    assert (record.name, record.queue, record.state) == ("build", "reports", State.QUEUED)
    assert record.payload == {"month": "2026-11"}
    assert (record.max_attempts, record.priority, record.tags) == (6, 2, ("nightly",))
    assert record.expires_at is not None
    assert record.expires_at - record.created_at == 3_600_000
    assert callboard.handle(handle.id).state is State.QUEUED
    with pytest.raises(WaitTimeout):
        handle.result(timeout=0.05)


@pytest.mark.usefixtures("configured")
def test_options_reach_the_record() -> None:
    @task
    def build() -> None: ...

    late = build.with_options(delay=timedelta(hours=1), fairness_key="a", max_attempts=None).submit().record()
    assert (late.state, late.reason, late.fairness_key, late.max_attempts) == (
        State.PENDING,
        "delayed",
        "a",
        None,
    )
    assert late.due_at is not None
    assert late.due_at - late.created_at == 3_600_000


@pytest.mark.usefixtures("configured")
def test_a_misspelt_option_is_refused_with_the_nearest() -> None:
    @task
    def build() -> None: ...

    with pytest.raises(Invalid, match=r"'prority' is no option of a submit\. Did you mean 'priority'\?"):
        build.with_options(prority=1).submit()  # type: ignore[call-arg]


@pytest.mark.usefixtures("configured")
def test_an_id_made_in_advance_is_accepted_once() -> None:
    @task(queue="reports")
    def build(n: int) -> None: ...

    fixed = build.with_options(task_id="reports_order-17")
    first, again = fixed.submit(1), fixed.submit(1)
    assert first.id == again.id == "reports_order-17"
    assert first.record().created_at == again.record().created_at


@pytest.mark.usefixtures("configured")
def test_many_and_from_a_loop() -> None:
    @task
    def build(n: int) -> None: ...

    handles = build.submit_many({"n": n} for n in range(250))
    assert len({handle.id for handle in handles}) == 250
    assert handles[249].record().payload == {"n": 249}

    async def inside() -> Any:
        try:
            return (await (await build.asubmit(7)).arecord()).payload
        finally:
            await callboard.aclose()

    assert asyncio.run(inside()) == {"n": 7}


@pytest.mark.usefixtures("configured")
def test_a_submit_follows_what_has_changed_since_the_last(redis_url: str, namespace: str) -> None:
    @task(queue="reports")
    def build(n: int) -> None: ...

    assert [build.submit(n).record().max_attempts for n in range(2)] == [4, 4]
    Queue("reports", retries=7)
    assert build.submit(3).record().max_attempts == 8
    callboard.configure(url=redis_url, namespace=f"{namespace}2")
    elsewhere = build.submit(4).record()
    assert (elsewhere.payload, elsewhere.max_attempts) == ({"n": 4}, 8)


@pytest.mark.usefixtures("configured")
def test_an_argument_that_can_be_read_once_is_read_once() -> None:
    @task(queue="reports")
    def build(numbers: Iterable[int]) -> None: ...

    # The first submit of a queue registers it.
    records = [build.submit(iter([1, 2])).record() for _ in range(2)]
    assert [record.payload for record in records] == [{"numbers": [1, 2]}] * 2


@pytest.mark.usefixtures("configured")
def test_a_bad_payload_stores_nothing() -> None:
    @task(queue="reports")
    def build(n: int) -> None: ...

    with pytest.raises(InvalidPayload, match="#/payload/n"):
        build.submit(n="many")  # type: ignore[arg-type]
    connection = default.connection()
    assert not list(connection.client.scan_iter(f"{connection.keys.namespace}:*"))


def test_a_full_queue_refuses(monkeypatch: pytest.MonkeyPatch, redis_url: str, namespace: str) -> None:
    monkeypatch.setenv("CALLBOARD_QUEUE_MAX_DEPTH", "2")
    callboard.configure(url=redis_url, namespace=namespace)

    @task(queue="small")
    def build() -> None: ...

    for _ in range(2):
        build.submit()
    with pytest.raises(QueueFull, match="small"):
        build.submit()


def test_without_any_redis_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    @task
    def build() -> None: ...

    with pytest.raises(StoreUnavailable, match=r"set CALLBOARD_REDIS_URL or call callboard\.configure"):
        build.submit()


def test_beside_an_embedded_server_no_setting_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    @task
    def build() -> None: ...

    with EmbeddedServer(tmp_path / ".callboard", persistent=False):
        assert build.submit().state is State.QUEUED
