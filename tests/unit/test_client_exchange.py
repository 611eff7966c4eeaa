"""Exchanges without any network: what is asked, what is repeated, what is raised."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest

from callboard import clock
from callboard.client import AsyncClient, Client, operations
from callboard.client.exchange import Call, Exchange, Fault, Pause, Reply, ask
from callboard.client.faults import ApiUnreachable, RequestRefused
from callboard.client.subscription import Subscription
from callboard.errors import Invalid, InvalidSetting, WaitTimeout
from callboard.records import State

T = TypeVar("T")

NOBODY = Fault("No answer: refused", sent=False)
LOST = Fault("No answer: reset", sent=True)


class Script:
    """Plays the API: gives prepared answers, and keeps what was asked. Pauses pass at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls: list[Call] = []
        self.pauses: list[float] = []
        monkeypatch.setattr(clock, "monotonic", lambda: self.now)

    def drive(self, exchange: Exchange[T], *answers: Reply | Fault) -> T:
        rest: Iterator[Reply | Fault] = iter(answers)
        answer: Reply | Fault | None = None
        try:
            while True:
                step = exchange.send(answer)
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    answer = None
                else:
                    self.calls.append(step)
                    answer = next(rest)
        except StopIteration as end:
            assert next(rest, None) is None, "an answer was not asked for"
            return end.value


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(monkeypatch)


def reply(document: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, encode(document))


def encode(document: Any) -> bytes:
    return json.dumps(document).encode()


def task(state: str = "running") -> dict[str, Any]:
    return {"id": "q_1", "name": "build", "queue": "q", "state": state}


def problem(status: int, **headers: str) -> Reply:
    return reply({"title": "Redis is away", "status": status, "code": "store-unavailable"}, status, **headers)


GET = Call("GET", "/x", repeatable=True)
POST = Call("POST", "/x", body={})


def test_what_may_be_repeated_is_repeated_for_a_while(script: Script) -> None:
    found = script.drive(ask(GET), NOBODY, LOST, problem(503), reply({}))
    assert found.status == 200
    assert script.pauses == [0.1, 0.2, 0.4]


def test_patience_ends(script: Script) -> None:
    with pytest.raises(ApiUnreachable, match="No answer: reset"):
        script.drive(ask(GET), *[LOST] * 4)
    assert sum(script.pauses) <= 1.0


def test_a_submit_whose_answer_is_lost_is_not_repeated(script: Script) -> None:
    with pytest.raises(ApiUnreachable):
        script.drive(ask(POST), LOST)
    with pytest.raises(RequestRefused):
        script.drive(ask(POST), problem(503))
    assert script.pauses == []


def test_a_submit_that_never_left_or_was_turned_away_is(script: Script) -> None:
    script.drive(ask(POST), NOBODY, problem(429, retry_after="0.3"), reply({}))
    assert script.pauses == [0.1, 0.3]


def test_a_wait_that_is_asked_for_beyond_the_patience_is_the_callers(script: Script) -> None:
    with pytest.raises(RequestRefused) as refused:
        script.drive(ask(GET), problem(503, retry_after="30"))
    assert refused.value.retry_after == 30
    assert refused.value.code == "store-unavailable"
    assert script.pauses == []


def test_a_problem_is_told_in_one_line() -> None:
    document = {
        "title": "Invalid payload",
        "status": 422,
        "code": "invalid-payload",
        "detail": "3 is not of type 'string'",
        "errors": [
            {"pointer": "#/payload/month", "detail": "3 is not of type 'string'", "code": "type"},
            {"pointer": "#/payload/rows", "detail": "is required"},
        ],
    }
    error = RequestRefused(422, document)
    assert str(error) == (
        "Invalid payload: 3 is not of type 'string' (#/payload/month); is required (#/payload/rows)"
    )
    assert [fault.pointer for fault in error.problems] == ["#/payload/month", "#/payload/rows"]
    assert str(RequestRefused(500, {"title": "Oh", "detail": "a\nb", "errors": "nonsense"})) == "Oh: a b"


@pytest.mark.parametrize(
    "answer",
    [
        Reply(200, {}, b"<html>"),
        Reply(404, {}, b"<html>"),
        Reply(301, {"location": "https://elsewhere"}, b""),
        reply(["a list"]),
        reply({"id": 7}),
        reply({"error": "not ours"}, 418),
    ],
)
def test_what_is_not_our_api_is_said_to_be(script: Script, answer: Reply) -> None:
    with pytest.raises(ApiUnreachable, match="What answers there"):
        script.drive(operations.task("q_1"), answer)


def test_a_proxys_own_503_counts_as_unreachable(script: Script) -> None:
    with pytest.raises(ApiUnreachable, match="in front of the API"):
        script.drive(operations.submit("build"), Reply(503, {}, b"<html>"))


def test_a_submit_sends_only_what_is_given(script: Script) -> None:
    script.drive(operations.submit("build", {"a": 1}), reply(task()))
    assert script.calls[0].body == {"name": "build", "payload": {"a": 1}}
    script.drive(operations.submit("build", max_attempts=None, priority=0, tags=["a"]), reply(task()))
    assert script.calls[1].body == {
        "name": "build", "payload": {}, "max_attempts": None, "priority": 0, "tags": ["a"],
    }  # fmt: skip
    assert not script.calls[0].repeatable


def test_times_without_a_zone_are_refused() -> None:
    from datetime import datetime

    with pytest.raises(Invalid, match="run_at"):
        next(operations.submit("build", run_at=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_a_wait_polls_until_the_end(script: Script) -> None:
    found = script.drive(
        operations.wait("q_1"),
        reply(task(), preference_applied="wait=50"),
        reply(task("completed")),
    )
    assert found.state is State.COMPLETED
    assert [call.headers for call in script.calls] == [{"Prefer": "wait=50"}] * 2
    assert script.pauses == []


def test_a_wait_does_not_spin_when_the_preference_is_lost(script: Script) -> None:
    script.drive(operations.wait("q_1"), reply(task()), reply(task()), reply(task("failed")))
    assert script.pauses == [1.0, 1.0]


def test_a_wait_that_runs_out_looks_once_more(script: Script) -> None:
    with pytest.raises(WaitTimeout, match=r"not ended within 1\.5 s; it is running and goes on"):
        script.drive(operations.wait("q_1", 1.5), *[reply(task())] * 3)
    assert [call.headers.get("Prefer") for call in script.calls] == ["wait=2", "wait=1", None]


def test_a_wait_sits_out_a_restart(script: Script) -> None:
    found = script.drive(operations.wait("q_1"), *[NOBODY] * 12, reply(task("completed")))
    assert found.ended
    assert 10 < sum(script.pauses) < 60


def test_a_list_takes_as_many_pages_as_it_needs(script: Script) -> None:
    pages = [
        reply({"items": [task()] * 200, "next_cursor": "a", "complete": True}),
        reply({"items": [task()] * 50, "next_cursor": "b", "complete": True}),
    ]
    page = script.drive(operations.tasks(states=["failed", "queued"], limit=250), *pages)
    assert len(page.items) == 250
    assert page.next_cursor == "b"
    assert page.document["next_cursor"] == "b"
    assert script.calls[0].params == (("state", "failed"), ("state", "queued"), ("limit", "200"))
    assert script.calls[1].params[-2:] == (("limit", "50"), ("cursor", "a"))


@pytest.mark.parametrize(("task_id", "path"), [("a/b?c", "a%2Fb%3Fc"), ("..", "%2E%2E"), ("", "%20")])
def test_an_id_stays_one_segment_of_the_path(script: Script, task_id: str, path: str) -> None:
    script.drive(operations.task(task_id), reply(task()))
    assert script.calls[0].path == f"/v1/tasks/{path}"


def test_both_clients_offer_every_operation() -> None:
    offered = {
        name
        for name, value in vars(operations).items()
        if inspect.isgeneratorfunction(value)
        and not name.startswith("_")
        and value.__module__ == operations.__name__
    }
    for client in (Client, AsyncClient):
        assert offered <= set(vars(client)), client
        for name in offered:
            assert inspect.getdoc(getattr(client, name)) == inspect.getdoc(getattr(operations, name))
    assert {name for name in vars(Client) if not name.startswith("_")} == {
        name for name in vars(AsyncClient) if not name.startswith("_")
    }


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="not the URL of an API"):
        Client("http://host:port")


STREAM = Reply(200, {"content-type": "text/event-stream; charset=utf-8"})


def test_a_stream_goes_on_where_it_was(script: Script) -> None:
    subscription = Subscription("/v1/events")
    assert "Last-Event-ID" not in subscription.call().headers
    assert subscription.opened(STREAM)
    [event] = subscription.feed(
        b'retry: 500\n\nevent: task.started\ndata: {"id": "q_1"}\nid: c7\n\ndata: {"ha'
    )
    assert (event.type, event.id, event.cursor) == ("task.started", "q_1", "c7")
    assert subscription.lost(LOST) == 0.5
    assert subscription.call().headers["Last-Event-ID"] == "c7"
    assert not subscription.opened(NOBODY)
    assert subscription.lost(NOBODY) == 1.0
    assert subscription.opened(STREAM)
    assert subscription.lost(None) == 0.5


def test_a_stream_gives_up_at_last(script: Script) -> None:
    subscription = Subscription("/v1/events")
    subscription.opened(STREAM)

    def reconnect() -> None:
        for _ in range(100):
            script.now += subscription.lost(LOST)

    with pytest.raises(ApiUnreachable, match="reset"):
        reconnect()
    assert 60 < script.now < 90


def test_a_first_connection_that_fails_is_told_at_once() -> None:
    with pytest.raises(ApiUnreachable):
        Subscription("/v1/events").opened(NOBODY)
    with pytest.raises(RequestRefused, match="Redis is away"):
        Subscription("/v1/events").opened(problem(503))
    with pytest.raises(ApiUnreachable, match="text/html instead of events"):
        Subscription("/v1/events").opened(Reply(200, {"content-type": "text/html"}))


def test_a_tasks_stream_ends_with_it() -> None:
    subscription = Subscription("/v1/tasks/q_1/events", ends_with_task=True)
    subscription.opened(STREAM)
    [started] = subscription.feed(b'event: task.started\ndata: {"state": "running"}\n\n')
    assert not started.ends_task
    subscription.feed(b'event: task.snapshot\ndata: {"state": "failed"}\n\n')
    assert subscription.over
    gone = Subscription("/v1/tasks/q_1/events", ends_with_task=True)
    assert not gone.opened(Reply(204, {}))
    assert gone.over


def test_an_idle_stream_is_over_if_it_may_be() -> None:
    subscription = Subscription("/v1/events", idle_seconds=1)
    assert subscription.call().read_seconds == 1
    subscription.opened(STREAM)
    assert subscription.lost(Fault("silence", sent=True, idle=True)) == 0
    assert subscription.over


def test_data_that_is_no_event_is_passed_over() -> None:
    subscription = Subscription("/v1/events")
    subscription.opened(STREAM)
    assert subscription.feed(b"data: nonsense\n\ndata: [1]\n\n") == []


def test_a_frame_without_data_moves_the_cursor_once_it_is_whole(script: Script) -> None:
    subscription = Subscription("/v1/events")
    subscription.opened(STREAM)
    assert subscription.feed(b"id: c1\n") == []
    assert "Last-Event-ID" not in subscription.call().headers, "its data may follow"
    assert subscription.feed(b"\n: ping\n\n") == []
    assert subscription.call().headers["Last-Event-ID"] == "c1"
    # What the connection took with it was not read, so its place is not ours.
    assert subscription.feed(b"id: c2\nevent: task.queued\ndata: {") == []
    assert subscription.lost(LOST) == 2
    assert subscription.call().headers["Last-Event-ID"] == "c1"
    subscription.opened(STREAM)
    [event] = subscription.feed(b'data: {"id": "q_1"}\n\nid: c3\n\n')
    assert event.cursor == "c1"
    assert subscription.call().headers["Last-Event-ID"] == "c3"
