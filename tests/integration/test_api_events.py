"""Server-sent events of all tasks: what the stream says, how it resumes, and how streams end."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from callboard_api.streams import cursor
from tests.support.api_server import RunningApi, listening, running_api, running_task
from tests.support.event_reader import EventReader
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("quick_looks")


@pytest.fixture
def api(fresh: RunningApi) -> RunningApi:
    """Each test has streams of its own to count."""
    return fresh


class TestMerged:
    def test_it_opens_as_a_stream_and_tells_what_happens(self, api: RunningApi) -> None:
        api.submit()  # before: not told
        with EventReader(api.url, "/v1/events") as reader:
            assert reader.status == 200
            assert reader.headers["content-type"].startswith("text/event-stream")
            assert reader.headers["cache-control"] == "no-store"
            assert reader.headers["x-accel-buffering"] == "no"
            assert "content-encoding" not in reader.headers
            assert reader.headers["x-request-id"]
            assert reader.frames[0].retry == "2000"
            assert reader.frames[0].data is None
            task_id = running_task(api)
            api.hand.note(task_id, progress={"current": 1, "total": 2}, lines=["hello"])
            api.hand.complete(task_id)
            done = reader.until("task.completed")
            mine = [frame for frame in reader.events if frame.data["id"] == task_id]
            # task.logged belongs to a task's own stream.
            assert [frame.event for frame in mine] == [
                "task.submitted", "task.started", "task.progressed", "task.completed",
            ]  # fmt: skip
            assert done.data == {
                "type": "task.completed", "at": done.data["at"], "id": task_id, "name": "add",
                "queue": "sums", "state": "completed", "attempt": 1, "owner": "default",
            }  # fmt: skip
            progress = {"current": 1, "total": 2, "percent": 50.0, "message": None}
            assert mine[2].data["progress"] == progress
            assert len({frame.id for frame in reader.events}) == len(reader.events)

    def test_events_fit_the_described_schema(self, api: RunningApi) -> None:
        document = api.http.get("/openapi.json").json()
        schema = {"$ref": "#/components/schemas/Event", "components": document["components"]}
        with EventReader(api.url, "/v1/events") as reader:
            task_id = running_task(api)
            api.hand.note(task_id, progress={"current": 1, "total": 2, "message": "x"})
            api.hand.fail(task_id)
            api.http.post("/v1/queues/sums/pause")
            reader.until("task.failed")
            reader.until("queue.changed")
            for frame in reader.events:
                Draft202012Validator(schema).validate(frame.data)

    def test_a_queue_that_is_new_is_heard_from_its_first_event(self, api: RunningApi) -> None:
        with EventReader(api.url, "/v1/events") as reader:
            task = api.submit("mail.send", {"to": "x"})
            assert reader.until("task.submitted").data["id"] == task["id"]

    def test_filters(self, api: RunningApi) -> None:
        api.submit()
        api.submit("mail.send", {"to": "x"})
        streams = {
            "queue": EventReader(api.url, "/v1/events", queue="mail"),
            "name": EventReader(api.url, "/v1/events", name=["add", "nobody"]),
            "type": EventReader(api.url, "/v1/events", type="task.cancelled,task.completed"),
            "tag": EventReader(api.url, "/v1/events", tag="red"),
            "all": EventReader(api.url, "/v1/events"),
        }
        plain = api.submit()["id"]
        red = api.submit("mail.send", {"to": "x"}, tags=["red"])["id"]
        api.http.post(f"/v1/tasks/{plain}/cancel")
        api.http.post(f"/v1/tasks/{red}/cancel")
        wait_until(lambda: len(streams["all"].events) == 4, description="four events")

        def heard(name: str) -> list[tuple[str, str]]:
            return [(frame.event.partition(".")[2], frame.data["id"]) for frame in streams[name].events]

        expected = {
            "queue": [("submitted", red), ("cancelled", red)],
            "name": [("submitted", plain), ("cancelled", plain)],
            "type": [("cancelled", plain), ("cancelled", red)],
            "tag": [("submitted", red), ("cancelled", red)],
        }
        for name, wanted in expected.items():
            streams[name].until_count(len(wanted))
            assert sorted(heard(name)) == sorted(wanted), name
            streams[name].close()
        streams["all"].close()

    def test_any_event_resumes_where_it_was(self, api: RunningApi) -> None:
        with EventReader(api.url, "/v1/events") as reader:
            tasks = [api.submit(queue=("sums", "mail")[n % 2])["id"] for n in range(20)]
            wait_until(lambda: len(reader.events) == 20, description="twenty events")
            whole = [frame.data["id"] for frame in reader.events]
            places = [reader.frames[0].id, *(frame.id for frame in reader.events)]
            api.submit("mail.send", {"to": "later"})
        assert sorted(whole) == sorted(tasks)
        for index in (0, 1, 7, 19, 20):
            for how in ({"headers": {"Last-Event-ID": places[index]}}, {"after": places[index]}):
                with EventReader(api.url, "/v1/events", **how) as again:
                    again.until_count(21 - index)
                    told = [frame.data["id"] for frame in again.events]
                    # The order between queues may differ; none is missing, and the later one is there.
                    assert set(whole[index:]) <= set(told)
                    assert "stream.reset" not in again.types
                    assert [frame.data["name"] for frame in again.events].count("mail.send") == 1

    def test_the_header_wins_over_the_parameter_that_a_browser_keeps(self, api: RunningApi) -> None:
        with EventReader(api.url, "/v1/events") as reader:
            first = reader.frames[0].id
            api.submit()
            api.submit()
            wait_until(lambda: len(reader.events) == 2)
            last = reader.last_id
        with EventReader(api.url, "/v1/events", headers={"Last-Event-ID": last}, after=first) as again:
            api.submit()
            again.until("task.submitted")
            assert len(again.events) == 1

    def test_a_cursor_older_than_the_window_gets_a_reset_and_what_is_kept(self, api: RunningApi) -> None:
        with EventReader(api.url, "/v1/events") as reader:
            api.submit()
            reader.until("task.submitted")
            place = reader.last_id
        for _ in range(5):
            api.submit()
        keys = api.connection.keys.queue("sums")
        api.connection.client.xtrim(keys.events, maxlen=2, approximate=False)
        with EventReader(api.url, "/v1/events", headers={"Last-Event-ID": place}) as again:
            wait_until(lambda: len(again.events) == 3, description="a reset and two events")
            assert again.types == ["stream.reset", "task.submitted", "task.submitted"]
            assert again.events[0].data["oldest"] == again.events[1].data["at"]

    def test_a_cursor_within_a_trimmed_window_gets_none(self, api: RunningApi) -> None:
        with EventReader(api.url, "/v1/events") as reader:
            for _ in range(5):
                api.submit()
            wait_until(lambda: len(reader.events) == 5)
            place = reader.events[2].id
        api.connection.client.xtrim(api.connection.keys.queue("sums").events, maxlen=3, approximate=False)
        with EventReader(api.url, "/v1/events", headers={"Last-Event-ID": place}) as again:
            wait_until(lambda: len(again.events) == 2)
            assert again.types == ["task.submitted"] * 2

    def test_a_cursor_ahead_of_the_stream_gets_a_reset(self, api: RunningApi) -> None:
        api.submit()
        ahead = cursor.encode({"sums": (2**50, 0)})
        with EventReader(api.url, "/v1/events", headers={"Last-Event-ID": ahead}) as reader:
            reader.until("task.submitted")
            assert reader.types == ["stream.reset", "task.submitted"]

    @pytest.mark.parametrize("word", ["5", "c1.", "c1.!!", "c1.W10", "c1.eyJhIjoxfQ", "c1.WzEse31d0"])
    def test_what_is_no_cursor_is_refused(self, api: RunningApi, word: str) -> None:
        for answer in (
            api.http.get("/v1/events", headers={"Last-Event-ID": word}),
            api.http.get("/v1/events", params={"after": word}),
        ):
            assert answer.status_code == 422
            assert answer.json()["code"] == "invalid-query"

    def test_bad_filters_are_refused(self, api: RunningApi) -> None:
        for query in ("type=task.exploded", "queues=sums", "tag=a&tag=b"):
            assert api.http.get(f"/v1/events?{query}").status_code == 422

    @pytest.mark.usefixtures("quick_pings")
    def test_pings_move_the_cursor_on(self, api: RunningApi) -> None:
        with EventReader(api.url, "/v1/events", queue="mail") as reader:
            for _ in range(3):
                api.submit()
            wait_until(lambda: any("ping" in frame.comments for frame in reader.frames), description="a ping")
            assert reader.events == []

        with EventReader(api.url, "/v1/events", type="task.completed") as reader:
            before = reader.last_id
            api.submit()

            def moved() -> bool:
                return reader.last_id != before

            wait_until(moved, description="a ping with a newer id")
            assert reader.events == []
            place = reader.last_id
        with EventReader(api.url, "/v1/events", headers={"Last-Event-ID": place}) as again:
            api.submit()
            again.until("task.submitted")
            assert len(again.events) == 1

    def test_one_reader_serves_all_and_stops_with_the_last(self, api: RunningApi) -> None:
        def readers() -> int:
            return sum(client["cmd"] == "xread" for client in api.connection.client.client_list())

        hub = api.platform.hub
        api.submit()
        api.submit("mail.send", {"to": "x"})
        streams = [EventReader(api.url, "/v1/events") for _ in range(5)]
        wait_until(lambda: listening(api) == 5)
        wait_until(lambda: readers() == 1, description="one reader of two queues for five listeners")
        for stream in streams:
            stream.close()
        wait_until(lambda: listening(api) == 0, description="everybody's leave")
        wait_until(lambda: api.call_in_loop(hub._runner.done), description="the reader's end")
        wait_until(lambda: readers() == 0, description="the connection's end")
        # And it starts again.
        with EventReader(api.url, "/v1/events") as reader:
            api.submit()
            reader.until("task.submitted")

    def test_head_gives_the_head(self, api: RunningApi) -> None:
        answer = api.http.head("/v1/events")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")

    def test_other_media_types_are_not_acceptable(self, api: RunningApi) -> None:
        answer = api.http.get("/v1/events", headers={"Accept": "application/json"})
        assert answer.status_code == 406


class TestEnds:
    def test_a_shutdown_ends_every_stream_at_once(self, redis_url: str) -> None:
        with running_api(redis_url) as api:
            task_id = api.submit()["id"]
            streams = [
                EventReader(api.url, "/v1/events"),
                EventReader(api.url, f"/v1/tasks/{task_id}/events"),
            ]
            wait_until(lambda: listening(api) == 2)
            api.ask_to_stop()
            for stream in streams:
                stream.until_ended(20)
                assert stream.body == b"", "the end is in order"
                stream.close()
            assert api.joined(20)

    def test_a_reader_that_takes_nothing_is_dropped(self, api: RunningApi) -> None:
        with socket.create_connection(("127.0.0.1", api.port)) as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            host = f"127.0.0.1:{api.port}"
            stuck.sendall(f"GET /v1/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            wait_until(lambda: listening(api) == 1)
            with EventReader(api.url, "/v1/events", type="task.completed") as other:
                task = {"name": "anything", "tags": ["x" * 100]}

                def dropped() -> bool:
                    for _ in range(3):
                        api.http.post("/v1/tasks/batch", json={"tasks": [task] * 1000})
                    return listening(api) == 1

                wait_until(dropped, timeout=60, description="the slow reader's drop")
                # The others are well.
                task_id = running_task(api)
                api.hand.complete(task_id)
                other.until("task.completed")

    def test_a_client_that_hangs_up_is_forgotten(self, api: RunningApi) -> None:
        reader = EventReader(api.url, "/v1/events")
        wait_until(lambda: listening(api) == 1)
        reader.close()
        wait_until(lambda: listening(api) == 0, description="the leave")

    def test_a_backlog_longer_than_the_buffer_arrives_whole(self, api: RunningApi) -> None:
        with EventReader(api.url, "/v1/events") as reader:
            place = reader.frames[0].id
        for _ in range(3):
            api.http.post("/v1/tasks/batch", json={"tasks": [{"name": "anything"}] * 1000})
        with EventReader(api.url, "/v1/events", headers={"Last-Event-ID": place}) as again:
            api.http.post("/v1/tasks/batch", json={"tasks": [{"name": "anything", "queue": "mail"}] * 500})
            wait_until(lambda: len(again.events) >= 3500, timeout=30, description="3500 events")
            ids = [frame.data["id"] for frame in again.events]
            assert len(set(ids)) == 3500
            assert "stream.reset" not in again.types

    def test_an_outage_is_survived_and_a_lost_stream_is_told(self, start_server: Any) -> None:
        server = start_server()
        with running_api(server.url) as api:
            with EventReader(api.url, "/v1/events") as reader:
                api.submit()
                reader.until("task.submitted")
                place = reader.last_id
                server.kill()
                server.start()  # without persistence: everything is gone
                reader.until_ended(20)
            wait_until(lambda: api.http.get("/readyz").status_code == 200, description="Redis's return")
            with EventReader(api.url, "/v1/events", headers={"Last-Event-ID": place}) as again:
                assert again.until("stream.reset").data["oldest"] is None
