"""Server-sent events of one task: its snapshot, what happens to it, how the stream resumes, and its end."""

from __future__ import annotations

import pytest

from callboard_api.streams import cursor
from tests.support.api_server import RunningApi, running_task
from tests.support.event_reader import EventReader

pytestmark = pytest.mark.usefixtures("quick_looks")


@pytest.fixture
def api(fresh: RunningApi) -> RunningApi:
    """Each test has streams of its own to count."""
    return fresh


class TestOneTask:
    def test_a_snapshot_then_events_to_the_end_then_204(self, api: RunningApi) -> None:
        task_id = running_task(api)
        other = api.submit()["id"]
        path = f"/v1/tasks/{task_id}/events"
        with EventReader(api.url, path) as reader:
            first = reader.until("task.snapshot").data
            assert (first["id"], first["state"], first["attempt"]) == (task_id, "running", 1)
            api.http.post(f"/v1/tasks/{other}/cancel")
            api.hand.note(task_id, progress={"current": 1, "total": 4}, lines=["one line"])
            reader.until("task.logged")
            api.hand.complete(task_id, 3)
            reader.until_ended()
            assert sorted(reader.types[1:3]) == ["task.logged", "task.progressed"]
            assert reader.types[-1] == "task.completed"
            assert {frame.data["id"] for frame in reader.events} == {task_id}
            end = reader.last_id
        again = EventReader(api.url, path, headers={"Last-Event-ID": end})
        assert (again.status, again.body) == (204, b"")
        again.close()

    def test_a_task_that_has_ended_gives_its_snapshot_and_ends(self, api: RunningApi) -> None:
        task_id = running_task(api)
        api.hand.fail(task_id)
        path = f"/v1/tasks/{task_id}/events"
        with EventReader(api.url, path) as reader:
            reader.until_ended()
            assert reader.types == ["task.snapshot"]
            told = reader.events[0].data
            assert (told["state"], told["reason"]) == ("failed", "permanent")
            again = EventReader(api.url, path, headers={"Last-Event-ID": reader.last_id})
            assert again.status == 204
            again.close()

    def test_it_resumes_without_a_gap(self, api: RunningApi) -> None:
        task_id = running_task(api)
        path = f"/v1/tasks/{task_id}/events"
        with EventReader(api.url, path) as reader:
            place = reader.until("task.snapshot").id
        for number in range(1, 4):
            api.hand.note(task_id, progress={"current": number})
        with EventReader(api.url, path, headers={"Last-Event-ID": place}) as again:
            again.until("task.progressed")
            api.hand.complete(task_id)
            again.until_ended()
            assert again.types[0] == "task.progressed"
            assert again.types[-1] == "task.completed"
            assert "task.snapshot" not in again.types

    def test_what_ended_meanwhile_is_told_and_the_stream_ends(self, api: RunningApi) -> None:
        task_id = running_task(api)
        path = f"/v1/tasks/{task_id}/events"
        with EventReader(api.url, path) as reader:
            place = reader.until("task.snapshot").id
        api.hand.complete(task_id)
        with EventReader(api.url, path, headers={"Last-Event-ID": place}) as again:
            again.until_ended()
            assert again.types == ["task.completed"]

    def test_a_retried_task_is_followed_through_its_second_life(self, api: RunningApi) -> None:
        task_id = running_task(api)
        path = f"/v1/tasks/{task_id}/events"
        with EventReader(api.url, path) as reader:
            place = reader.until("task.snapshot").id
        api.hand.fail(task_id)
        api.http.post(f"/v1/tasks/{task_id}/retry")
        with EventReader(api.url, path, headers={"Last-Event-ID": place}) as again:
            again.until("task.queued")
            assert api.hand.claim() == [task_id]
            api.hand.complete(task_id)
            again.until_ended()
            assert again.types == ["task.failed", "task.queued", "task.started", "task.completed"]

    def test_a_merged_streams_cursor_serves_and_a_gap_gives_a_snapshot(self, api: RunningApi) -> None:
        task_id = running_task(api)
        path = f"/v1/tasks/{task_id}/events"
        with EventReader(api.url, "/v1/events") as reader:
            place = reader.frames[0].id
        api.hand.note(task_id, progress={"current": 1})
        with EventReader(api.url, path, headers={"Last-Event-ID": place}) as one:
            one.until("task.progressed")
            assert "task.snapshot" not in one.types
        for ahead_or_old in (cursor.encode({"sums": (2**50, 0)}), cursor.encode({"mail": (5, 0)})):
            with EventReader(api.url, path, headers={"Last-Event-ID": ahead_or_old}) as one:
                assert one.until("task.snapshot").data["progress"]["current"] == 1

    @pytest.mark.usefixtures("quick_pings")
    def test_an_end_that_left_no_event_is_found_in_the_record(self, api: RunningApi) -> None:
        task_id = running_task(api)
        with EventReader(api.url, f"/v1/tasks/{task_id}/events") as reader:
            reader.until("task.snapshot")
            # As when memory is short and no event is written: the stream loses it before it is read.
            hub = api.platform.hub
            api.call_in_loop(lambda: setattr(hub, "_spread", lambda reply: None))
            api.hand.complete(task_id)
            reader.until_ended()
            assert reader.types == ["task.snapshot", "task.snapshot"]
            assert reader.events[-1].data["state"] == "completed"

    @pytest.mark.usefixtures("quick_pings")
    def test_a_task_deleted_meanwhile_ends_its_stream(self, api: RunningApi) -> None:
        task = api.submit(delay_seconds=60)
        with EventReader(api.url, f"/v1/tasks/{task['id']}/events") as reader:
            reader.until("task.snapshot")
            api.http.post("/v1/queues/sums/purge", json={"state": "pending"})
            reader.until_ended()
