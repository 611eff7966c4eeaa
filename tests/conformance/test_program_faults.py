"""What a Dramatiq program survives: its workers killed or stopped, Redis restarted under Dramatiq's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard.records.state import State
from callboard.storage.embedded import EmbeddedServer
from tests.conformance.processes import Hosts, imported
from tests.support.waiting import wait_until

pytestmark = pytest.mark.proof

KINDS = pytest.mark.parametrize("kind", ["serve", "cli"])
LEASE_SECONDS = 1.0


@pytest.fixture
def server(start_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    return start_server(persistent=True, config={"appendfsync": "always"})


@pytest.fixture
def hosts(server: EmbeddedServer, namespace: str, tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path, server.url, namespace, lease_seconds=LEASE_SECONDS)
    yield made
    made.close()


@pytest.fixture
def program(hosts: Hosts) -> Iterator[Any]:
    with imported(hosts) as module:
        yield module


def started(program: Any, word: str, times: int = 1) -> None:
    wait_until(lambda: program.traces().count(word) == times, 30, f"{times} runs of {word}")


@pytest.mark.parametrize("heir", ["serve", "cli"])
def test_a_killed_cli_leaves_its_message_to_others(hosts: Hosts, program: Any, heir: str) -> None:
    victim = hosts.start("cli", processes=1, threads=1)
    message = program.stubborn.send("stubborn")
    started(program, "stubborn")
    hosts.start(heir)
    victim.kill()
    [record] = hosts.board.await_end([program.broker.task_id(message)], 30)
    assert (record.state, record.result, record.attempt) == ("completed", "second", 2)
    assert [attempt.outcome for attempt in record.attempts] == ["lost", "completed"]
    assert program.traces().count("stubborn") == 2
    assert hosts.board.faults() == []


def test_a_body_that_kills_the_cli_runs_again_elsewhere(hosts: Hosts, program: Any) -> None:
    """Dramatiq's CLI stops as a whole when one of its processes dies; the message is safe all the same."""
    victim = hosts.start("cli", processes=1, threads=1)
    message = program.crash.send("crash")
    assert victim.wait(60) != 0
    hosts.start("cli", processes=1, threads=1)
    [record] = hosts.board.await_end([program.broker.task_id(message)], 30)
    assert (record.state, record.result, record.attempt) == ("completed", "alive", 2)


@KINDS
def test_follow_ups_survive_a_kill_right_after_the_end(hosts: Hosts, program: Any, kind: str) -> None:
    victim = hosts.start(kind)
    pipes = program.last_words.message("last") | program.note.message("follow")
    pipes.run()
    started(program, "last")
    if kind == "cli":
        victim.wait(60)
    else:
        wait_until(lambda: not victim.alive, 30, "the worker's death")
    [record] = hosts.board.await_end([program.broker.task_id(pipes.messages[0])], 10)
    assert record.state == "completed"
    hosts.start(kind)
    started(program, "follow-1")
    [record] = hosts.board.await_end([program.broker.task_id(pipes.messages[1])], 30)
    assert (record.state, record.attempt) == ("completed", 1)
    program.broker.join("program", timeout=20_000)
    assert sorted(program.traces()) == ["follow-1", "last"]
    assert hosts.board.faults() == []


@pytest.mark.parametrize("heir", ["serve", "cli"])
def test_a_stopped_cli_gives_back_what_it_has_not_started(hosts: Hosts, program: Any, heir: str) -> None:
    victim = hosts.start("cli", processes=1, threads=4)
    words = [f"word-{number}" for number in range(40)]
    messages = [program.linger.send(word, 0.5) for word in words]
    started(program, "word-0-start")
    victim.term()
    assert victim.wait(60) == 0
    done = hosts.board.size("program", State.COMPLETED)
    assert 1 <= done < 40
    assert hosts.board.size("program", State.QUEUED) == 40 - done
    hosts.start(heir)
    records = hosts.board.await_end([program.broker.task_id(message) for message in messages], 60)
    assert {(record.state, record.attempt) for record in records} == {("completed", 1)}
    assert sorted(program.traces()) == sorted(f"{word}-{mark}" for word in words for mark in ("start", "end"))


def test_the_cli_goes_on_when_redis_comes_back(hosts: Hosts, program: Any, server: EmbeddedServer) -> None:
    cli = hosts.start("cli", processes=2, threads=2)
    before = [program.add.send(number, 1) for number in range(10)]
    hosts.board.await_end([program.broker.task_id(message) for message in before], 30)
    through = program.linger.send("through", 3)
    later = program.add.send_with_options(args=(1, 1), delay=1500)
    started(program, "through-start")
    server.kill()
    wait_until(lambda: not server.alive, 30, "the server's death")
    server.start()
    after = [program.add.send(number, 2) for number in range(10)]
    messages = [*before, through, later, *after]
    records = hosts.board.await_end([program.broker.task_id(message) for message in messages], 60)
    assert {(record.state, record.attempt) for record in records} == {("completed", 1)}
    assert program.traces() == ["through-start", "through-end"]
    assert cli.alive
    assert len(hosts.board.workers()) == 2
    assert hosts.board.faults() == []
