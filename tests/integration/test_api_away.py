"""The API while Redis is away, unfit, or back again; and as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from callboard_api import store
from tests.support.api_server import publish, running_api
from tests.support.event_reader import EventReader
from tests.support.ports import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


class TestAway:
    def test_it_starts_serves_503_and_recovers(self, start_server: Any) -> None:
        server = start_server()
        server.kill()
        with running_api(server.url, prepare=lambda connection: None) as api:
            assert api.http.get("/livez").status_code == 200
            assert api.http.get("/readyz").status_code == 503
            for answer in (
                api.http.get("/readyz"),
                api.http.get("/v1/tasks"),
                api.http.get("/v1/tasks/sums_x"),
                api.http.get("/v1/queues"),
                api.http.get("/v1/events"),
                api.http.post("/v1/tasks", json={"name": "add"}),
                api.http.post("/v1/tasks/batch", json={"tasks": [{"name": "add"}]}),
            ):
                assert answer.status_code == 503, answer.request.url
                assert answer.json()["code"] == "store-unavailable"
                assert int(answer.headers["retry-after"]) > 0
                assert "127.0.0.1" not in answer.text, "nothing of our inside"
            # What needs no Redis is answered.
            assert api.http.get("/openapi.json").status_code == 200
            assert api.http.post("/v1/tasks", content=b"{").status_code == 415
            server.start()
            publish(api.connection)
            body = {"name": "add", "payload": {"a": 1}}
            wait_until(lambda: api.http.post("/v1/tasks", json=body).status_code == 202, description="a 202")
            wait_until(lambda: api.app.state.pulse.verdict is True, description="the ops port's readiness")

    def test_an_outage_in_between_loses_nothing_that_was_kept(self, start_server: Any) -> None:
        server = start_server(persistent=True, config={"appendfsync": "always"})
        with running_api(server.url) as api:
            task = api.submit()
            server.kill()
            assert api.http.get(f"/v1/tasks/{task['id']}").status_code == 503
            server.start()
            wait_until(lambda: api.http.get("/readyz").status_code == 200)
            assert api.task(task["id"]) == task

    def test_a_redis_that_hangs_does_not_hang_the_api(
        self, start_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = start_server()
        with running_api(server.url) as api:
            api.submit()
            monkeypatch.setattr(store, "PATIENCE_SECONDS", 0.5)
            os.kill(server.pid, signal.SIGSTOP)
            try:
                body = {"name": "add", "payload": {"a": 1}}
                url = f"{api.url}/v1/tasks"

                def post(_: int) -> int:
                    # A client for each: what one pool closes in a thread another may be about to use. And
                    # without `verify` each would spend its time on certificates.
                    return httpx.post(url, json=body, timeout=60, verify=False).status_code

                with ThreadPoolExecutor(100) as threads:
                    began = time.monotonic()
                    assert set(threads.map(post, range(100))) == {503}
                    # Not one after the other, each for a socket's time-out: that would be minutes.
                    assert time.monotonic() - began < 40
                assert api.http.get("/livez").status_code == 200
            finally:
                os.kill(server.pid, signal.SIGCONT)
            wait_until(
                lambda: api.http.post("/v1/tasks", json=body).status_code == 202, description="the recovery"
            )

    def test_a_wait_is_told_of_an_outage(self, start_server: Any) -> None:
        server = start_server()
        with running_api(server.url) as api:
            task = api.submit()
            server.kill()
            answer = api.http.get(f"/v1/tasks/{task['id']}", headers={"Prefer": "wait=20"})
            assert answer.status_code == 503

    def test_a_submit_that_waits_was_accepted_whatever_comes_after(self, start_server: Any) -> None:
        server = start_server()
        with running_api(server.url) as api, ThreadPoolExecutor(1) as thread:
            body = {"name": "add", "payload": {"a": 1}}
            headers = {"Prefer": "wait=30"}
            waiting = thread.submit(httpx.post, f"{api.url}/v1/tasks", json=body, headers=headers, timeout=60)
            wait_until(lambda: api.call_in_loop(lambda: bool(api.platform.completions._bells)))
            server.kill()
            answer = waiting.result(30)
            assert (answer.status_code, answer.json()["state"]) == (202, "queued")


class Process:
    """`python -m callboard_api` and what it says."""

    def __init__(self, **env: str) -> None:
        self.port = free_port()
        self.ops_port = free_port()
        settings = {
            "CALLBOARD_API_PORT": str(self.port),
            "CALLBOARD_OPS_PORT": str(self.ops_port),
            **{f"CALLBOARD_{name}": value for name, value in env.items()},
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "callboard_api"],
            env={**os.environ, **settings},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def until_ready(self) -> None:
        def ready() -> bool:
            try:
                return httpx.get(f"{self.url}/readyz", verify=False).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready, description="the process's readiness", poll=0.05)

    def end(self, timeout: float = 20) -> tuple[int, str]:
        """Its exit code and everything that it said."""
        output, _ = self.process.communicate(timeout=timeout)
        return self.process.returncode, output


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(**env: str) -> Process:
        started.append(Process(**env))
        return started[-1]

    yield begin
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
        if process.process.stdout is not None:
            process.process.communicate()


class TestProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_in_order_with_streams_open(
        self, redis_url: str, namespace: str, start: Callable[..., Process], number: int
    ) -> None:
        process = start(REDIS_URL=redis_url, NAMESPACE=namespace)
        process.until_ready()
        ops = f"http://127.0.0.1:{process.ops_port}"
        wait_until(lambda: _status(f"{ops}/readyz") == 200, description="the ops port's readiness")
        assert _status(f"{ops}/livez") == 200
        assert "callboard_http_requests_total" in httpx.get(f"{ops}/metrics").text
        with EventReader(process.url, "/v1/events") as reader:
            process.process.send_signal(number)
            reader.until_ended()
            code, output = process.end()
        assert code == 0, output
        assert f"listens on http://127.0.0.1:{process.port}" in output
        assert "Traceback" not in output
        assert "ERROR" not in output

    def test_a_second_signal_does_not_wait_and_is_no_failure(
        self, redis_url: str, namespace: str, start: Callable[..., Process]
    ) -> None:
        process = start(REDIS_URL=redis_url, NAMESPACE=namespace)
        process.until_ready()
        with socket.create_connection(("127.0.0.1", process.port)) as slow:
            slow.sendall(b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf")
            wait_until(lambda: _status(process.url + "/livez") == 200)
            process.process.send_signal(signal.SIGTERM)
            wait_until(lambda: _status(process.url + "/livez") == 0, description="that it listens no more")
            process.process.send_signal(signal.SIGTERM)
            code, output = process.end(9)  # requests have ten seconds to end
        assert code == 0, output
        assert "Traceback" not in output

    def test_it_serves_without_redis_and_says_so_once(self, start: Callable[..., Process]) -> None:
        process = start(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
        wait_until(lambda: _status(process.url + "/livez") == 200, timeout=20)
        for _ in range(3):
            assert _status(process.url + "/v1/queues") == 503
        assert httpx.get(f"http://127.0.0.1:{process.ops_port}/readyz").status_code == 503
        process.process.send_signal(signal.SIGTERM)
        code, output = process.end()
        assert code == 0
        assert output.count("requests are answered 503") == 1
        assert "Traceback" not in output

    def test_a_port_in_use_is_told(self, redis_url: str, start: Callable[..., Process]) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            code, output = start(REDIS_URL=redis_url, API_PORT=str(port)).end()
            assert code == 1
            assert f"cannot listen on 127.0.0.1 port {port}" in output
            assert "Traceback" not in output
            code, output = start(REDIS_URL=redis_url, OPS_PORT=str(port)).end()
            assert code == 1
            assert "CALLBOARD_OPS_PORT" in output

    @pytest.mark.parametrize(
        ("env", "told"),
        [
            ({"API_PORT": "eighty"}, "CALLBOARD_API_PORT: expected"),
            ({"REDIS_URL": "redis://127.0.0.1:1", "API_HOST": "0.0.0.0"}, "CALLBOARD_ADMIN_KEY"),
            ({"DATA_DIR": "/nonexistent"}, "CALLBOARD_REDIS_URL is not set"),
        ],
    )
    def test_bad_settings_stop_it_with_a_line(
        self, start: Callable[..., Process], env: dict[str, str], told: str
    ) -> None:
        code, output = start(**env).end()
        assert code == 2
        assert told in output
        assert "Traceback" not in output

    def test_a_redis_that_evicts_is_refused(self, start_server: Any, start: Callable[..., Process]) -> None:
        server = start_server(config={"maxmemory": "50mb", "maxmemory-policy": "allkeys-lru"})
        code, output = start(REDIS_URL=server.url).end()
        assert code == 4
        assert "noeviction" in output
        assert "Traceback" not in output


def _status(url: str) -> int:
    try:
        return httpx.get(url, verify=False).status_code
    except httpx.TransportError:
        return 0
