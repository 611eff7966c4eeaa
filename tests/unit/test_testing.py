from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

import callboard
from callboard import (
    Contract,
    Discard,
    Retry,
    TaskFailed,
    TaskHandle,
    WaitTimeout,
    current,
    progress,
    stdio,
    task,
)
from callboard.context import Cancelled, SoftLimitExceeded
from callboard.errors import IllegalTransition, InvalidPayload
from callboard.records import State
from callboard.task import isolated_registry
from callboard.testing import LocalHandle, assert_not_submitted, assert_submitted, eager, recording


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    with isolated_registry():
        yield


class Page(BaseModel):
    url: str


def test_the_body_runs_before_submit_returns() -> None:
    @task(queue="reports")
    def build(month: str, rows: int = 100) -> dict[str, Any]:
        progress(rows, 200, "half")
        current().logger.info("building %s", month)
        assert current().attempt == 1
        return {"month": month, "rows": rows}

    with eager():
        handle = build.submit(month="2026-11")
        assert handle.ready()
        assert handle.state is State.COMPLETED
        assert handle.result(timeout=60) == {"month": "2026-11", "rows": 100}
        assert handle.progress() == {"current": 100, "total": 200, "message": "half", "percent": 50.0}
        [line] = handle.logs()
        assert (line.seq, line.level, line.message) == (1, "info", "building 2026-11")
        assert handle.id.startswith("reports_")


def test_the_payload_goes_through_json_both_ways() -> None:
    seen: list[object] = []

    @task
    def take(page: Page, pair: tuple[int, int]) -> tuple[int, int]:
        seen.append(page)
        return pair

    with eager():
        given = Page(url="x")
        assert take.submit(given, (1, 2)).result() == [1, 2]
    assert seen == [given]
    assert seen[0] is not given


def test_a_bad_payload_is_refused_as_it_would_be() -> None:
    @task
    def take(page: Page) -> None: ...

    with eager() as submits:
        with pytest.raises(InvalidPayload, match="#/payload/page/url"):
            take.submit(page={})  # type: ignore[arg-type]
        assert len(submits) == 0
        with pytest.raises(InvalidPayload, match="bytes"):
            take.submit(Page(url="x" * 300_000))


def test_retries_are_honoured_without_their_waits() -> None:
    attempts: list[int] = []

    @task(retries=3, delays=[3600])
    def flaky() -> str:
        attempts.append(current().attempt)
        if len(attempts) < 3:
            raise ConnectionError("not yet")
        return "done"

    with eager():
        record = flaky.submit().wait()
    assert attempts == [1, 2, 3]
    assert (record.state, record.result, record.attempt, record.max_attempts) == (
        State.COMPLETED,
        "done",
        3,
        4,
    )
    assert [attempt.outcome for attempt in record.attempts] == ["failed", "failed", "completed"]


def test_attempts_run_out() -> None:
    @task(retries=1)
    def broken() -> None:
        raise ValueError("always")

    with eager():
        handle = broken.submit()
        record = handle.wait()
        assert (record.state, record.reason, record.attempt) == (State.FAILED, "exhausted", 2)
        with pytest.raises(TaskFailed, match="ValueError: always") as caught:
            handle.result()
    assert isinstance(caught.value.__cause__, ValueError)
    assert 'raise ValueError("always")' in str(caught.value)
    assert caught.value.record.id == handle.id


@pytest.mark.parametrize("error", [Discard("bad address"), KeyError("x"), InvalidPayload("of another task")])
def test_permanent_errors_are_not_retried(error: Exception) -> None:
    runs: list[int] = []

    @task(permanent=KeyError)
    def once() -> None:
        runs.append(1)
        raise error

    with eager():
        record = once.submit().wait()
    assert (len(runs), record.state, record.reason) == (1, State.FAILED, "permanent")
    assert record.error is not None
    assert record.error["retryable"] is False


def test_a_retry_by_the_body_counts_unless_it_says_otherwise() -> None:
    runs: list[int] = []

    @task(retries=1)
    def snoozes() -> int:
        runs.append(current().attempt)
        if len(runs) < 6:
            raise Retry(after=60, counts=False)
        if len(runs) == 6:
            raise Retry
        return len(runs)

    with eager():
        assert snoozes.submit().result() == 7
    assert runs == [1, 1, 1, 1, 1, 1, 2]


def test_a_task_that_never_ends_is_stopped() -> None:
    @task(retries=None)
    def endless() -> None:
        raise Retry(counts=False)

    with eager():
        assert endless.submit().wait().reason == "exhausted"


def test_limits_and_cancels_end_as_they_would() -> None:
    @task(retries=0)
    def slow() -> None:
        raise SoftLimitExceeded

    @task
    def stopped() -> None:
        raise Cancelled

    with eager():
        assert slow.submit().wait().reason == "timeout"
        assert stopped.submit().wait().state is State.CANCELLED


@pytest.mark.parametrize("value", [object(), float("nan"), "x" * 1_100_000])
def test_a_result_that_cannot_be_kept_fails_the_task(value: object) -> None:
    @task
    def odd() -> object:
        return value

    with eager():
        record = odd.submit().wait()
    assert (record.state, record.reason, record.attempt) == (State.FAILED, "permanent", 1)


def test_a_result_is_kept_as_a_worker_keeps_it() -> None:
    @task
    def dated() -> dict[str, object]:
        return {"at": datetime(2026, 11, 22, tzinfo=UTC), "of": {UUID(int=1)}, "page": Page(url="x")}

    with eager():
        assert dated.submit().result() == {
            "at": "2026-11-22T00:00:00Z",
            "of": ["00000000-0000-0000-0000-000000000001"],
            "page": {"url": "x"},
        }


def test_a_body_that_exits_fails_its_task_only() -> None:
    @task(retries=0)
    def exits() -> None:
        raise SystemExit(3)

    with eager():
        assert exits.submit().state is State.FAILED


def test_tasks_submitted_by_tasks_run_too_and_know_their_parent() -> None:
    @task
    def child(number: int) -> int:
        return number * 2

    @task
    def parent() -> Any:
        return child.submit(21).result()

    with eager() as submits:
        handle = parent.submit()
        assert handle.result() == 42
        assert submits.of(child)[0].handle.record().parent_id == handle.id


def test_async_bodies_run_from_anywhere() -> None:
    @task
    async def fetch(url: str) -> str:
        await asyncio.sleep(0)
        return f"{current().name} {url}"

    @task
    def plain() -> str:
        return "plain"

    async def inside() -> list[Any]:
        first = await fetch.asubmit("a")
        return [await first.aresult(), fetch.submit("b").result(), await (await plain.asubmit()).aresult()]

    with eager():
        assert fetch.submit("x").result() == "fetch x"
        assert asyncio.run(inside()) == ["fetch a", "fetch b", "plain"]


def test_submits_of_other_threads_are_taken_as_well() -> None:
    @task
    def build() -> int:
        return 1

    results: list[Any] = []
    with eager():
        thread = threading.Thread(target=lambda: results.append(build.submit().result()))
        thread.start()
        thread.join()
    assert results == [1]


def test_many_at_once() -> None:
    @task
    def double(n: int) -> int:
        return 2 * n

    with eager():
        assert [handle.result() for handle in double.submit_many({"n": n} for n in range(3))] == [0, 2, 4]


def test_recording_runs_nothing() -> None:
    @task(queue="reports")
    def build(month: str, rows: int = 1) -> None:
        raise AssertionError("it ran")

    with recording() as submits:
        handle = build.with_options(delay=60, priority=1).submit(month="2026-11")
        assert not handle.ready()
        assert handle.state is State.PENDING
        with pytest.raises(WaitTimeout, match="recorded, not run"):
            handle.result()
        found = assert_submitted(build, month="2026-11")
        assert found.payload == {"month": "2026-11"}
        assert (found.submission.delay_ms, found.submission.priority) == (60_000, 1)
        assert handle.cancel()
        assert handle.record().state is State.CANCELLED
    assert [item.name for item in submits] == ["build"]


def test_assertions_tell_what_was_submitted_instead() -> None:
    @task
    def build(month: str, page: Page | None = None) -> None: ...

    @task(Contract("parse", payload=Page))
    def parse(page: Page) -> None: ...

    with recording():
        with pytest.raises(AssertionError, match="nothing"):
            assert_submitted(build)
        build.submit("2026-11", Page(url="x"))
        parse.submit(Page(url="y"))
        assert_submitted(build)
        assert_submitted(build, page=Page(url="x"))
        assert_submitted(parse, url="y")
        assert_not_submitted(build, month="2026-12")
        with pytest.raises(
            AssertionError,
            match=r'(?s)build was not submitted.*build \{"month": "2026-11".*parse \{"url": "y"\}',
        ):
            assert_submitted(build, month="2026-12")
        with pytest.raises(AssertionError, match="was submitted 1 times"):
            assert_not_submitted(parse)


def test_outside_of_a_mode_there_is_nothing_to_assert() -> None:
    @task
    def build() -> None: ...

    with pytest.raises(RuntimeError, match=r"recording\(\) or eager\(\)"):
        assert_submitted(build)
    with eager():
        pass
    with pytest.raises(RuntimeError):
        assert_not_submitted(build)


@pytest.mark.parametrize("mode", [eager, recording])
async def test_a_handle_by_its_id_is_the_submitted_one(mode: Any) -> None:
    @task
    def name() -> str:
        return current().id

    with mode():
        first = name.submit()
        with mode():
            second = await name.asubmit()
            assert callboard.handle(first.id) is first
            assert callboard.handle(second.id).state is second.state
            if mode is eager:
                assert callboard.handle(second.id).result() == second.id
        # An inner mode's tasks are forgotten with it.
        assert callboard.handle(second.id) is not second
    assert type(callboard.handle(first.id)) is TaskHandle


def test_what_a_body_prints_is_its_log_and_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    @task
    def inner() -> None:
        print("inner", end="")

    @task
    def outer() -> str:
        print("first\nsecond")
        print("trouble", file=sys.stderr)
        handle = inner.submit()
        print("unfinished", end="")
        return handle.id

    with eager():
        print("before")
        handle = outer.submit()
        assert [(line.level, line.message) for line in handle.logs()] == [
            ("info", "first"),
            ("info", "second"),
            ("warning", "trouble"),
            ("info", "unfinished"),
        ]
        assert [line.message for line in callboard.handle(handle.result()).logs()] == ["inner"]
    assert capsys.readouterr() == ("before\nfirst\nsecond\ninnerunfinished", "trouble\n")
    assert not isinstance(sys.stdout, stdio.TaskStream)


def test_what_has_ended_cannot_be_cancelled() -> None:
    @task
    def build() -> None: ...

    with eager():
        handle = build.submit()
        assert isinstance(handle, LocalHandle)
        with pytest.raises(IllegalTransition):
            handle.cancel()


def test_it_is_reached_from_the_package() -> None:
    with callboard.testing.eager():
        pass


def test_the_handle_has_everything_that_a_real_one_has() -> None:
    # What it does not override must not need a connection.
    public = {name for name in vars(callboard.TaskHandle) if not name.startswith("_")}
    derived = {"state", "astate", "ready", "aready", "progress", "aprogress"}
    assert public - set(vars(LocalHandle)) == derived
