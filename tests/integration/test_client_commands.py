"""The operating commands against the real API."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from callboard.cli.group import callboard
from callboard.cli.watching import watch
from callboard.client import Client, Task
from callboard.settings import child_environment
from callboard.storage.connection import Connection
from tests.support.served_api import KEY, QUEUE, PlayedWorker, served_api
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def worker(redis_url: str) -> Iterator[PlayedWorker]:
    connection = Connection(redis_url, namespace=f"t{uuid.uuid4().hex[:12]}")
    yield PlayedWorker(connection)
    connection.close()


@pytest.fixture(scope="module")
def url(redis_url: str, worker: PlayedWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("api") / "api.log"
    with served_api(redis_url, worker.connection.keys.namespace, log) as url:
        yield url


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, url: str, tmp_path: Path) -> None:
    monkeypatch.setenv("CALLBOARD_URL", url)
    monkeypatch.setenv("CALLBOARD_KEY", KEY)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def empty(worker: PlayedWorker, environment: None) -> Iterator[None]:
    yield
    for local, token in list(worker.claims.items()):
        worker.claims[local] = token
        worker.complete(f"{QUEUE}_{local}")
    for state in ("queued", "pending", "completed", "failed", "cancelled"):
        call("queues", "purge", QUEUE, "--state", state, "--yes")


def call(*words: str, code: int = 0, typed: str | None = None) -> Result:
    result = CliRunner().invoke(callboard, words, input=typed)
    assert result.exit_code == code, result.output
    return result


def told(*words: str) -> Any:
    return json.loads(call(*words).stdout)


def submitted(*words: str) -> str:
    return call("submit", "build", "month=x", "--quiet", *words).stdout.strip()


def test_submit_says_what_became_of_it(worker: PlayedWorker) -> None:
    line = call("submit", "build", "month=2026-11", "rows=3").stdout
    assert line == f"{worker.claim()[0]}  queued\n"
    assert "pending, due 2" in call("submit", "build", "month=x", "--delay", "1h").stdout
    Path("payload.json").write_text('{"month": "2026-12", "rows": 1}', encoding="utf-8")
    document = told(
        "submit", "build", "rows=9", "--json", "payload.json", "--priority", "2", "--tag", "a", "--tag", "b",
        "--fairness-key", "me", "--expires-in", "3650d", "--max-attempts", "endless",
        "--at", "2035-01-01T00:00:00Z",
        "--output", "json",
    )  # fmt: skip
    task = told("tasks", "show", document["id"], "--json")
    assert task["payload"] == {"month": "2026-12", "rows": 9}
    assert (task["priority"], task["tags"], task["fairness_key"]) == (2, ["a", "b"], "me")
    assert (task["max_attempts"], task["due_at"]) == (None, "2035-01-01T00:00:00.000Z")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["submit", "biuld"], 4, "callboard: Unknown task: No task is named 'biuld'. Did you mean 'build'?"),
        (["submit", "build", "month=3"], 4, "is not of type 'string' (#/payload/month)"),
        (["submit", "build", "month=x", "--delay", "1h", "--at", "2035-01-01T00:00:00Z"], 2, "not both"),
        (["submit", "build", "month=x", "--timeout", "1"], 2, "--timeout needs --wait"),
        (["tasks", "show", "reports_nothing"], 4, "callboard: Not found: No task has the id"),
        (["queues", "pause", "nowhere"], 4, "callboard: Not found: No queue is named 'nowhere'."),
        (["tasks", "list", "--cursor", "rubbish"], 4, "callboard: "),
        (["events", "--task", "x", "--queue", "y"], 2, "do not go with it"),
    ],
)
def test_refusals_are_one_line(words: list[str], code: int, said: str) -> None:
    result = call(*words, code=code)
    assert said in result.stderr
    assert "Traceback" not in result.output
    if code == 4:
        assert result.stderr.count("\n") == 1


def test_wait_ends_with_the_task(worker: PlayedWorker) -> None:
    def play(end: Any) -> None:
        [claimed] = wait_until(worker.claim, 20, "the submit")
        end(claimed)

    player = threading.Thread(target=play, args=(worker.complete,))
    player.start()
    shown = call("submit", "build", "month=x", "--wait")
    player.join()
    assert "completed" in shown.stdout
    assert '"rows": 3' in shown.stdout
    player = threading.Thread(target=play, args=(worker.fail,))
    player.start()
    shown = call("submit", "build", "month=x", "--wait", code=1)
    player.join()
    assert "failed (permanent)" in shown.stdout
    assert "ValueError: No such month." in shown.stdout
    late = call("submit", "build", "month=x", "--wait", "--timeout", "50ms", code=1)
    assert "has not ended within 0.05 s; it is queued and goes on." in late.stderr


def test_a_terminal_sees_the_progress(
    worker: PlayedWorker, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    screen: list[str] = []

    def shows(text: str) -> bool:
        screen.append(capsys.readouterr().err)
        return text in "".join(screen)

    with Client(url, KEY) as client:
        task = client.submit("build", {"month": "x"})
        ended: list[Task] = []
        watcher = threading.Thread(target=lambda: ended.append(watch(client, task, 60, visible=True)))
        watcher.start()
        wait_until(lambda: shows("queued"), 20, "the first state")
        worker.claim()
        worker.note(task.id, progress=b'{"current": 1, "total": 4, "message": "reading rows"}')
        wait_until(lambda: shows("running: reading rows"), 20, "the progress")
        worker.complete(task.id)
        watcher.join(20)
    assert [task.state for task in ended] == ["completed"]


def test_lists_for_people_programs_and_pipes(worker: PlayedWorker) -> None:
    assert call("tasks", "list").output == "No tasks.\n"
    first, second, third = (submitted("--tag", name) for name in ("one", "two", "three"))
    worker.claim()
    lines = call("tasks", "list").stdout.splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATE", "ATTEMPT", "PROGRESS", "AGE", "WAIT", "RUN"]
    assert [line.split()[0] for line in lines[1:]] == [third, second, first]
    assert lines[3].split()[2:4] == ["running", "1/4"]
    assert call("tasks", "list", "--quiet", "--state", "queued").stdout.split() == [third, second]
    assert call("tasks", "list", "-q", "--tag", "two").stdout.split() == [second]
    assert call(
        "tasks", "list", "-q", "--since", "1h", "--until", "2030-01-01T00:00:00Z", "--find", "ONE"
    ).stdout
    page = call("tasks", "list", "--limit", "2")
    cursor = page.stderr.removeprefix("There are more: --cursor ").strip()
    assert call("tasks", "list", "-q", "--limit", "2", "--cursor", cursor).stdout.split() == [first]
    document = told("tasks", "list", "--json", "--limit", "1")
    assert [item["id"] for item in document["items"]] == [third]
    assert document["next_cursor"]


def test_one_task_for_people(worker: PlayedWorker) -> None:
    task_id = submitted()
    worker.claim()
    worker.note(task_id, progress=b'{"current": 1, "total": 3, "message": "\\u001b[31mrows"}')
    shown = call("tasks", "show", task_id).stdout
    assert "33% \\x1b[31mrows" in shown
    assert "\x1b" not in shown
    worker.fail(task_id)
    shown = call("tasks", "show", task_id).stdout
    assert "error     ValueError: No such month." in shown
    assert shown.rstrip().endswith("ValueError")


def test_logs(worker: PlayedWorker) -> None:
    task_id = submitted()
    worker.claim()
    worker.note(task_id, "one", "two\x1b[0m")
    assert call("tasks", "logs", task_id).stdout == "08:00:00.000 one\n08:00:00.000 two\\x1b[0m\n"
    assert call("tasks", "logs", task_id, "--after", "1").stdout.count("\n") == 1
    line = json.loads(call("tasks", "logs", task_id, "--json").stdout.splitlines()[0])
    assert (line["seq"], line["message"]) == (1, "one")


def test_logs_followed_to_the_end(worker: PlayedWorker) -> None:
    task_id = submitted()
    process = subprocess.Popen(
        [sys.executable, "-m", "callboard", "tasks", "logs", "--follow", task_id],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment({"PYTHONUNBUFFERED": "1"}),
    )
    with process:
        assert process.stdout is not None
        worker.claim()
        worker.note(task_id, "one")
        assert process.stdout.readline().endswith(" one\n")
        worker.note(task_id, "two", "three", first=2)
        worker.complete(task_id)
        assert [line.split()[-1] for line in process.stdout] == ["two", "three"]
    assert process.returncode == 0


def test_acting_on_several_tasks_goes_on_after_a_refusal(worker: PlayedWorker) -> None:
    running, waiting = submitted(), submitted()
    worker.claim()
    result = call("tasks", "cancel", "reports_nothing", running, waiting, code=4)
    assert result.stdout == f"{running}  running, asked to stop\n{waiting}  cancelled\n"
    assert result.stderr.startswith("callboard: reports_nothing: Not found: ")
    assert call("tasks", "retry", waiting).stdout == f"{waiting}  queued\n"
    assert call("tasks", "cancel", "--terminate", "-q", waiting).stdout == f"{waiting}\n"
    copies = [
        json.loads(line) for line in call("tasks", "resubmit", waiting, waiting, "--json").stdout.splitlines()
    ]
    assert {copy["resubmitted_from"] for copy in copies} == {waiting}
    changed = call("tasks", "resubmit", waiting, "--set", "rows=7", "-q").stdout.strip()
    assert told("tasks", "show", changed, "--json")["payload"] == {"month": "x", "rows": 7}
    Path("other.json").write_text('{"month": "y"}', encoding="utf-8")
    other = call("tasks", "resubmit", waiting, "--payload", "other.json", "-q").stdout.strip()
    assert told("tasks", "show", other, "--json")["payload"] == {"month": "y"}
    refused = call("tasks", "delete", other, waiting, code=4)
    assert refused.stdout == f"{waiting}  deleted\n"
    assert refused.stderr.startswith(f"callboard: {other}: ")


def test_queues(worker: PlayedWorker) -> None:
    submitted()
    call("queues", "pause", QUEUE)
    row = next(line for line in call("queues", "list").stdout.splitlines() if line.startswith(QUEUE))
    assert row.split()[:4] == [QUEUE, "0", "1", "0"]
    assert row.endswith("paused")
    assert call("queues", "resume", QUEUE).stdout == f"{QUEUE}  open\n"
    assert QUEUE in call("queues", "list", "--quiet").stdout.split()
    assert QUEUE in [item["name"] for item in told("queues", "list", "--json")["items"]]
    asked = call("queues", "purge", QUEUE, "--state", "queued", typed="n\n", code=130)
    assert f"Drop 1 queued tasks of {QUEUE}?" in asked.stderr
    assert (
        call("queues", "purge", QUEUE, "--state", "queued", typed="y\n").stdout
        == f"{QUEUE}  1 queued tasks dropped\n"
    )
    call("queues", "purge", QUEUE, "--state", "running", code=2)


def test_workers(worker: PlayedWorker) -> None:
    worker.__init__(worker.connection)  # type: ignore[misc] # its presence may have run out
    header, row = call("workers", "list").stdout.splitlines()
    assert header.split() == ["ID", "QUEUES", "BUSY", "SLOTS", "MEMORY", "UP", "VERSION", "STANDING"]
    assert row.split()[:6] == ["played", QUEUE, "1", "4", "1", "MiB"]
    assert told("workers", "list", "--json")["items"][0]["id"] == "played"
    assert call("workers", "list", "-q").stdout == "played\n"


def test_events_that_are_kept_and_where_to_go_on(worker: PlayedWorker) -> None:
    task_id = submitted()
    call("tasks", "cancel", task_id)
    found = [json.loads(line) for line in call("events", "--queue", QUEUE, "--json").stdout.splitlines()]
    mine = [event for event in found if event["id"] == task_id]
    assert [event["type"] for event in mine] == ["task.submitted", "task.cancelled"]
    after = call("events", "--after", mine[0]["cursor"]).stdout
    assert after.split()[1:] == ["task.cancelled", task_id, "build", "(cancelled)"]
    snapshot = call("events", "--task", task_id).stdout
    assert snapshot.split()[1:3] == ["task.snapshot", task_id]


def test_events_followed_until_interrupted(worker: PlayedWorker) -> None:
    import signal

    process = subprocess.Popen(
        [sys.executable, "-m", "callboard", "events", "--follow", "--json", "--type", "task.cancelled"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        seen.extend(json.loads(line)["id"] for line in process.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    made: list[str] = []

    def cancelled() -> bool:
        made.append(submitted())
        call("tasks", "cancel", made[-1])
        return bool(seen)

    # Nothing tells from outside when the stream is open, so tasks are cancelled until one is heard.
    wait_until(cancelled, 30, "an event", poll=0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    reader.join()
    assert set(seen) <= set(made)
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read().strip() == ""
    assert process.stdout is not None
    process.stdout.close()


def test_a_wrong_key_and_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as changed:
        changed.setenv("CALLBOARD_KEY", "cb_wrong_wrong_wrong")
        assert "No valid key" in call("queues", "list", code=4).stderr
        changed.setenv("CALLBOARD_URL", "http://127.0.0.1:9")
        gone = call("tasks", "cancel", "a_1", "b_2", code=3)
        assert gone.stderr.count("\n") == 1
        assert "Is it running (`callboard up`)?" in call("queues", "list", code=3).stderr
