from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import BaseModel

import callboard
from callboard import Contract, task
from callboard.context import CurrentTask, enter
from callboard.errors import Invalid, InvalidDeclaration, InvalidPayload
from callboard.submit import Submission
from callboard.task import SubmitOptions, Task, isolated_registry, registered, submission


class Page(BaseModel):
    url: str
    depth: int = 1


@task(queue="reports", tags=["nightly"], expires_in=3600)
def pickled(month: str, rows: int = 100) -> dict[str, Any]:
    """Build a report."""
    return {"month": month, "rows": rows}


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    with isolated_registry():
        yield


def prepared(task: Task[..., Any, Any], *args: Any, **kwargs: Any) -> Submission:
    return task.with_options().submission(task.payload_of(args, kwargs))


def payload(found: Submission) -> Any:
    assert isinstance(found.payload, bytes)
    return json.loads(found.payload)


def test_a_task_is_still_a_function() -> None:
    assert pickled("2026-11", rows=2) == {"month": "2026-11", "rows": 2}
    assert pickled.__name__ == "pickled"
    assert pickled.__doc__ == "Build a report."
    assert repr(pickled) == "<Task 'pickled' in queue 'reports'>"


def test_every_form_of_the_decorator() -> None:
    @task
    def bare() -> None: ...

    @task()
    def called() -> None: ...

    @task(name="other.name", queue="q")
    def named() -> None: ...

    @task(Contract("apart", queue="far"))
    def apart() -> None: ...

    assert [registered()[name].contract.queue_name for name in ("bare", "called", "other.name", "apart")] == [
        "default", "default", "q", "far",
    ]  # fmt: skip
    assert registered()["other.name"] is named
    assert (bare.name, called.name, apart.name) == ("bare", "called", "apart")


def test_two_tasks_of_one_name_are_refused_with_both_places() -> None:
    @task
    def same() -> None: ...

    with pytest.raises(InvalidDeclaration) as caught:
        task(name="same")(lambda: None)
    assert str(caught.value).count("test_task.py:") == 2


def test_a_module_loaded_anew_replaces_its_task() -> None:
    made = []
    for _ in range(2):

        @task
        def again() -> None: ...

        made.append(again)
    assert registered()["again"] is made[1]


def test_what_cannot_be_a_task_is_refused() -> None:
    def generator() -> Iterator[int]:
        yield 1

    wrongs: list[Any] = [generator, Page, 3, pickled]
    for wrong in wrongs:
        with pytest.raises(InvalidDeclaration):
            task(wrong)
    with pytest.raises(InvalidDeclaration, match="takes no options"):
        task(Contract("x"), queue="q")  # type: ignore[call-overload]


def test_arguments_become_the_payload_in_every_way_a_function_can_be_called() -> None:
    expected = {"month": "2026-11", "rows": 3}
    assert payload(prepared(pickled, "2026-11", 3)) == expected
    assert payload(prepared(pickled, "2026-11", rows=3)) == expected
    assert payload(prepared(pickled, month="2026-11", rows=3)) == expected
    wrongs: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((1, 2, 3), {}), (("x",), {"month": "y"}), ((), {"mont": "x"}), ((), {}), ((), {"month": 3}),
    ]  # fmt: skip
    for args, kwargs in wrongs:
        with pytest.raises(InvalidPayload):
            prepared(pickled, *args, **kwargs)


def test_a_model_can_be_given_whole_or_by_its_fields() -> None:
    @task(Contract("parse", payload=Page, queue="parsing"))
    def parse(page: Page) -> str:
        return page.url

    page = Page(url="x", depth=2)
    for found in (prepared(parse, page), prepared(parse, page=page), prepared(parse, url="x", depth=2)):
        assert payload(found) == {"url": "x", "depth": 2}
    assert parse.call(b'{"url": "y"}') == "y"
    for wrong in (("x",), (page, page)):
        with pytest.raises(InvalidPayload):
            prepared(parse, *wrong)


def test_keyword_arguments_of_a_body_stay_flat() -> None:
    @task
    def loose(first: int, **rest: Any) -> dict[str, Any]:
        return rest

    assert payload(prepared(loose, 1, a=2)) == {"first": 1, "a": 2}
    assert loose.call({"first": 1, "a": 2}) == {"a": 2}


def test_the_body_gets_its_types() -> None:
    seen: list[object] = []

    @task
    def typed(when: datetime, pages: list[Page]) -> None:
        seen.extend([when, pages])

    moment = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    typed.call(prepared(typed, moment, [Page(url="x")]).payload or b"")
    assert seen == [moment, [Page(url="x")]]
    with pytest.raises(InvalidPayload, match="#/payload/when"):
        typed.call({"when": "soon", "pages": []})


def test_an_async_body_is_awaited_by_who_runs_it() -> None:
    @task
    async def fetch(url: str) -> str:
        return url.upper()

    assert fetch.is_async
    assert not pickled.is_async
    assert asyncio.run(fetch.call({"url": "x"})) == "X"
    assert asyncio.run(fetch("y")) == "Y"


def test_a_submission_is_the_contracts_word() -> None:
    found = prepared(pickled, "2026-11")
    assert (found.name, found.queue, found.priority, found.max_attempts) == ("pickled", "reports", 5, 4)
    assert (found.expires_in_ms, tuple(found.tags), found.owner) == (3_600_000, ("nightly",), "default")


def test_options_change_one_submit() -> None:
    options: SubmitOptions = {
        "delay": timedelta(seconds=90), "priority": 0, "queue": "other", "tags": ["nightly", "x"],
        "max_attempts": None, "fairness_key": "team-a", "expires_in": 600, "task_id": "other_1",
        "owner": "me",
    }  # fmt: skip
    found = pickled.with_options(**options).submission({"month": "x"})
    assert found.delay_ms == 90_000
    assert (found.priority, found.queue, found.max_attempts, found.fairness_key) == (
        0,
        "other",
        None,
        "team-a",
    )
    assert tuple(found.tags) == ("nightly", "x")
    assert (found.expires_in_ms, found.task_id, found.owner) == (600_000, "other_1", "me")
    at = datetime(2026, 11, 22, 10, 30, tzinfo=timezone(timedelta(hours=1)))
    assert pickled.with_options(run_at=at).submission({"month": "x"}).due_at_ms == 1_795_339_800_000


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1}, {"delay": float("nan")}, {"delay": "1"}, {"delay": timedelta(days=4000)},
        {"run_at": datetime(2026, 1, 1)}, {"run_at": 1},  # noqa: DTZ001
        {"delay": 1, "run_at": datetime(2027, 1, 1, tzinfo=UTC)},
        {"priority": 10}, {"priority": "high"}, {"max_attempts": 0}, {"queue": "a b"}, {"dely": 1},
        {"expires_in": 60, "delay": 60}, {"delay": 7200},
    ],
)  # fmt: skip
def test_a_bad_option_is_refused(options: Any) -> None:
    with pytest.raises(Invalid):
        pickled.with_options(**options).submission({"month": "x"})


def test_a_task_submitted_by_a_task_knows_its_parent_and_owner() -> None:
    class Nothing:
        def progress(self, blob: bytes) -> None: ...
        def log(self, level: str, text: str) -> None: ...

    with enter(CurrentTask("reports_1", "n", "reports", owner="team-a"), Nothing()):
        found = prepared(pickled, "x")
    assert (found.parent_id, found.owner) == ("reports_1", "team-a")
    assert prepared(pickled, "x").parent_id == ""


def test_a_contract_alone_can_be_submitted_where_it_has_a_model() -> None:
    found = submission(Contract("parse", payload=Page, queue="parsing"), {"url": "x"}, priority=1)
    assert (found.name, found.queue, found.priority, payload(found)) == ("parse", "parsing", 1, {"url": "x"})
    with pytest.raises(Invalid, match="no payload model"):
        submission(Contract("bare"), {})


def test_a_task_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(pickled)) is pickled


def test_the_registry_is_looked_at_not_written() -> None:
    with pytest.raises(TypeError):
        registered()["x"] = pickled  # type: ignore[index]


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_is_light() -> None:
    heavy = run(
        "import sys, callboard\n"
        "print([m for m in sys.modules if m.startswith('callboard.') or m in "
        "('redis', 'pydantic', 'dramatiq', 'prometheus_client', 'msgpack', 'asyncio')])"
    )
    assert heavy == "[]"


@pytest.mark.parametrize(
    "first",
    ["import callboard.task", "import callboard.handle", "from callboard.task import registered", "pass"],
)
def test_the_public_names_win_over_the_modules_of_the_same_name(first: str) -> None:
    assert (
        run(
            f"{first}\nfrom callboard import task, handle\n"
            "import callboard.task, callboard.handle, callboard, types\n"
            "from callboard.task import Task\n"
            "print(callboard.task is task, isinstance(task, types.FunctionType), "
            "callboard.handle is handle, isinstance(handle, types.FunctionType))"
        )
        == "True True True True"
    )


def test_every_public_name_is_there() -> None:
    for name in callboard.__all__:
        assert getattr(callboard, name) is not None
    assert set(callboard.__all__) <= set(dir(callboard))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        callboard.nothing  # noqa: B018


def test_the_example_of_the_readme_works_as_it_stands() -> None:
    assert (
        run(
            "import callboard.testing\n"
            "from callboard import task, progress\n"
            '@task(queue="reports")\n'
            "def build(month: str, rows: int = 100) -> dict:\n"
            "    progress(rows, rows)\n"
            '    return {"month": month}\n'
            "with callboard.testing.eager():\n"
            '    print(build.submit(month="2026-11").result(timeout=60))'
        )
        == "{'month': '2026-11'}"
    )
