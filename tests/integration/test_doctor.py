"""The doctor against a real store that is broken by hand, one fault at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result

from callboard import control, inspector
from callboard.catalog.presence import Presence, show
from callboard.cli.group import callboard
from callboard.doctor import FAULTS, Checkup, Fault
from callboard.records import State
from callboard.storage.connection import Connection
from callboard.storage.keys import QueueKeys
from tests.support.tasks import accept, fail, finish, record, run, turn

QUEUE = "parsing"


@pytest.fixture
def connection(redis_url: str, namespace: str) -> Iterator[Connection]:
    connection = Connection(redis_url, namespace=namespace)
    yield connection
    connection.close()


@pytest.fixture
def client(connection: Connection) -> redis.Redis:
    assert isinstance(connection.client, redis.Redis)
    return connection.client


@pytest.fixture
def queue(connection: Connection) -> QueueKeys:
    return connection.keys.queue(QUEUE)


def check(connection: Connection) -> list[Fault]:
    return list(Checkup(connection).faults())


def mend(connection: Connection) -> list[Fault]:
    return list(Checkup(connection, mend=True).faults())


def codes(faults: list[Fault]) -> list[str]:
    return sorted(fault.code for fault in faults)


def running(connection: Connection, queue: str = QUEUE) -> tuple[str, str]:
    """A task that a living worker runs, and its token."""
    connection.run(show(connection.keys, Presence("w1", "h", 1, "0", 0, [queue], 1, 1)))
    [claim] = run(connection, queue)
    return claim


def test_a_store_with_tasks_in_every_state_is_sound(connection: Connection) -> None:
    connection.run(show(connection.keys, Presence("w1", "h", 1, "0", 0, [QUEUE], 4, 1)))
    accept(connection, QUEUE, 3)
    finished, failed, _ = turn(connection, QUEUE, want=3)
    finish(connection, QUEUE, [finished])
    fail(connection, QUEUE, [failed])
    accept(connection, QUEUE, 120, priority=3, fairness_key="a")
    accept(connection, QUEUE, 2, delay_ms=60_000)
    [local] = accept(connection, "other_queue.x")
    connection.run(control.cancel(connection.keys, f"other_queue.x_{local}"))
    checkup = Checkup(connection)
    assert list(checkup.faults()) == []
    assert checkup.tasks == 126
    assert checkup.queues == {QUEUE, "other_queue.x"}


def test_looking_changes_nothing(connection: Connection, client: redis.Redis, queue: QueueKeys) -> None:
    local, _ = accept(connection, QUEUE, 2)
    client.zrem(queue.state("queued"), local)
    client.set(queue.mutable("ghost"), b"?")
    before = {name: client.dump(name) for name in client.scan_iter(f"{connection.keys.namespace}:*")}
    assert codes(check(connection)) == ["no-set", "undecodable"]
    assert {name: client.dump(name) for name in client.scan_iter(f"{connection.keys.namespace}:*")} == before


def healed(connection: Connection, *expected: str) -> list[Fault]:
    """Exactly these faults are seen, then mended, then gone."""
    assert codes(check(connection)) == sorted(expected)
    mended = mend(connection)
    assert codes(mended) == sorted(expected)
    assert all(fault.mended for fault in mended)
    assert check(connection) == []
    return mended


def test_a_queued_task_that_fell_out_of_its_set_runs_again(
    connection: Connection, client: redis.Redis, queue: QueueKeys
) -> None:
    local, other = accept(connection, QUEUE, 2)
    client.zrem(queue.state("queued"), local)
    client.delete(queue.wake)
    [fault] = healed(connection, "no-set")
    assert fault == Fault(QUEUE, "no-set", f"{QUEUE}_{local}", mended=True)
    assert client.llen(queue.wake) == 1
    # In its old place, before the one that came after it.
    assert [claimed for claimed, _ in turn(connection, QUEUE, want=2)] == [local, other]


def test_a_running_task_that_fell_out_of_its_set_keeps_its_claim_until_it_is_rescued(
    connection: Connection, client: redis.Redis, queue: QueueKeys
) -> None:
    local, _ = running(connection)
    client.zrem(queue.state("running"), local)
    healed(connection, "no-set")
    lease = client.zscore(queue.state("running"), local)
    assert isinstance(lease, float)
    assert lease <= int(client.time()[0]) * 1000 + 1000
    assert record(connection, QUEUE, local).state is State.RUNNING


@pytest.mark.parametrize("where", ["pending", "completed", "failed", "cancelled"])
def test_a_finished_task_that_fell_out_of_its_set_is_kept_again(
    connection: Connection, client: redis.Redis, queue: QueueKeys, where: str
) -> None:
    if where == "pending":
        [local] = accept(connection, QUEUE, delay_ms=60_000)
    elif where == "cancelled":
        [local] = accept(connection, QUEUE)
        connection.run(control.cancel(connection.keys, f"{QUEUE}_{local}"))
    else:
        claim = running(connection)
        local = claim[0]
        (finish if where == "completed" else fail)(connection, QUEUE, [claim])
    score = client.zscore(queue.state(where), local)
    client.zrem(queue.state(where), local)
    healed(connection, "no-set")
    assert client.zscore(queue.state(where), local) == score


def test_of_two_sets_the_records_stays(connection: Connection, client: redis.Redis, queue: QueueKeys) -> None:
    local, _ = running(connection)
    client.zadd(queue.state("completed"), {local: 1})
    client.zadd(queue.state("queued"), {local: 5 * 2**49})
    healed(connection, "two-sets")
    assert client.zscore(queue.state("completed"), local) is None
    assert client.zscore(queue.state("queued"), local) is None
    assert client.zscore(queue.state("running"), local) is not None


def test_a_set_that_the_record_does_not_name_is_left(
    connection: Connection, client: redis.Redis, queue: QueueKeys
) -> None:
    local, other = accept(connection, QUEUE, 2)
    client.zrem(queue.state("queued"), local)
    client.zadd(queue.state("failed"), {local: 1})
    healed(connection, "wrong-set")
    assert [claimed for claimed, _ in turn(connection, QUEUE, want=2)] == [local, other]


def test_a_member_without_record_fails_where_people_see_it_if_it_waited(
    connection: Connection, client: redis.Redis, queue: QueueKeys
) -> None:
    waiting, done, _ = accept(connection, QUEUE, 3)
    connection.run(control.cancel(connection.keys, f"{QUEUE}_{done}"))
    client.delete(queue.mutable(waiting), queue.mutable(done))
    healed(connection, "no-record", "no-record")
    failed = record(connection, QUEUE, waiting)
    assert (failed.state, failed.reason) == (State.FAILED, "permanent")
    assert connection.run(inspector.get(connection.keys, f"{QUEUE}_{done}")) is None
    assert client.exists(queue.immutable(done)) == 0


def test_a_record_that_cannot_be_read_fails_with_its_bytes_kept(
    connection: Connection, client: redis.Redis, queue: QueueKeys
) -> None:
    local, _ = accept(connection, QUEUE, 2)
    client.set(queue.mutable(local), b"\x01nonsense")
    healed(connection, "undecodable")
    assert record(connection, QUEUE, local).state is State.FAILED
    assert client.get(f"{queue.prefix}bad:{local}") == b"\x01nonsense"


def test_a_waiting_task_without_payload_fails_under_its_name(
    connection: Connection, client: redis.Redis, queue: QueueKeys
) -> None:
    [local] = accept(connection, QUEUE)
    client.delete(queue.immutable(local))
    healed(connection, "no-payload")
    raw = client.get(queue.mutable(local))
    assert isinstance(raw, bytes)
    assert b"a.task" in raw
    assert client.zscore(queue.state("failed"), local) is not None
    # Its fairness key has its place back, so the priority is empty again.
    assert client.exists(queue.fair(5)) == 0


def test_scores_that_no_script_could_have_written(
    connection: Connection, client: redis.Redis, queue: QueueKeys
) -> None:
    leased, _ = running(connection)
    [delayed] = accept(connection, QUEUE, delay_ms=60_000)
    queued, _ = accept(connection, QUEUE, 2)
    due = client.zscore(queue.state("pending"), delayed)
    place = client.zscore(queue.state("queued"), queued)
    client.zadd(queue.state("running"), {leased: 9e15})
    client.zadd(queue.state("pending"), {delayed: float("inf")})
    client.zadd(queue.state("queued"), {queued: 1})
    healed(connection, "wrong-score", "wrong-score", "wrong-score")
    assert client.zscore(queue.state("pending"), delayed) == due
    assert client.zscore(queue.state("queued"), queued) == place
    lease = client.zscore(queue.state("running"), leased)
    assert lease is not None
    assert lease < 9e15


def test_the_sets_beside_the_states(connection: Connection, client: redis.Redis, queue: QueueKeys) -> None:
    unlisted, ageless, done = accept(connection, QUEUE, 3)
    connection.run(control.cancel(connection.keys, f"{QUEUE}_{done}"))
    created = client.zscore(queue.all, unlisted)
    client.zrem(queue.all, unlisted)
    client.zrem(queue.age, ageless)
    client.zadd(queue.age, {done: 1, "ghost": 1})
    client.zadd(queue.all, {"spook": 1})
    healed(connection, "unlisted", "no-age", "stray-age", "no-record", "no-record")
    assert client.zscore(queue.all, unlisted) == created
    assert client.zscore(queue.age, ageless) is not None
    assert client.zcard(queue.age) == 2


def test_records_that_no_set_leads_to(connection: Connection, client: redis.Redis, queue: QueueKeys) -> None:
    lost, kept = accept(connection, QUEUE, 2)
    client.zrem(queue.all, lost)
    client.zrem(queue.state("queued"), lost)
    client.zrem(queue.age, lost)
    client.set(queue.immutable("gone"), b"x")
    client.set(queue.log("gone"), b"x")
    client.set(queue.history("gone2"), b"x")
    faults = healed(connection, "no-set", "unlisted", "no-age", "leftovers", "leftovers")
    assert f"{QUEUE}_{lost}" in {fault.subject for fault in faults}
    assert {claimed for claimed, _ in turn(connection, QUEUE, want=2)} == {lost, kept}
    assert client.exists(queue.log("gone"), queue.immutable("gone"), queue.history("gone2")) == 0


def test_halves_of_the_outbox(connection: Connection, client: redis.Redis, queue: QueueKeys) -> None:
    accept(connection, QUEUE)
    client.zadd(queue.outbox, {"a:1": 1, "b:1": 1})
    client.set(queue.outbox_body("b:1"), b"body")
    client.set(queue.outbox_body("c:1"), b"body")
    faults = healed(connection, "outbox-orphan", "outbox-orphan")
    assert {fault.subject for fault in faults} == {"a:1", "c:1"}
    assert client.zscore(queue.outbox, "b:1") == 1


def test_fairness_of_an_empty_priority(connection: Connection, client: redis.Redis, queue: QueueKeys) -> None:
    accept(connection, QUEUE)
    client.hset(queue.fair(2), "someone", "900 900 4")
    client.hset(queue.meta, mapping={"v2": 100, "s2": 900})
    [fault] = healed(connection, "stale-fairness")
    assert fault.subject == "priority 2"
    # The virtual clock never goes back: a newcomer must not overtake by an old tag.
    assert client.hget(queue.meta, "v2") == b"900"
    assert client.exists(queue.fair(5)) == 1


def test_claims_of_workers_that_are_gone(
    connection: Connection, client: redis.Redis, queue: QueueKeys
) -> None:
    running(connection)
    client.hset(queue.claims, "dead-worker", "nonce id")
    [fault] = healed(connection, "stale-claim")
    assert fault.subject == "dead-worker"
    assert client.hkeys(queue.claims) == [b"w1"]


def test_a_queue_that_the_registry_does_not_know(
    connection: Connection, client: redis.Redis, queue: QueueKeys
) -> None:
    [local] = accept(connection, QUEUE)
    client.srem(connection.keys.queues, QUEUE)
    client.zrem(queue.age, local)
    healed(connection, "unregistered", "no-age")
    assert client.smembers(connection.keys.queues) == {QUEUE.encode()}


def test_other_namespaces_are_left_alone(connection: Connection, client: redis.Redis) -> None:
    stranger = f"{connection.keys.namespace}x:{{{QUEUE}}}:i:gone"
    client.set(stranger, b"x")
    accept(connection, QUEUE)
    assert mend(connection) == []
    assert client.exists(stranger) == 1


def test_many_faults_take_many_steps(connection: Connection, client: redis.Redis, queue: QueueKeys) -> None:
    locals_ = accept(connection, QUEUE, 350)
    client.zrem(queue.state("queued"), *locals_)
    client.zrem(queue.all, *locals_[::2])
    found = mend(connection)
    assert codes(found) == ["no-set"] * 350 + ["unlisted"] * 175
    assert check(connection) == []
    assert client.zcard(queue.state("queued")) == 350


@pytest.fixture
def command(connection: Connection, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("CALLBOARD_REDIS_URL", redis_url)
    monkeypatch.setenv("CALLBOARD_NAMESPACE", connection.keys.namespace)
    return lambda *words: CliRunner().invoke(callboard, ["doctor", *words])


def test_the_command_tells_mends_and_exits_accordingly(
    command: Callable[..., Result], connection: Connection, client: redis.Redis, queue: QueueKeys
) -> None:
    locals_ = accept(connection, QUEUE, 31)
    assert command().output == "31 tasks in 1 queue: all sound.\n"
    client.hset(queue.claims, "dead-worker", "nonce id")
    passing = command()
    assert passing.exit_code == 0
    assert "stale-claim" in passing.stdout
    client.zrem(queue.age, *locals_[:30])
    found = command()
    assert found.exit_code == 1
    assert found.stdout.count("no-age") == 21
    assert "and 10 more" in found.stdout
    assert "31 tasks in 1 queue: 31 faults found." in found.stdout
    told = command("--json")
    assert told.exit_code == 1
    assert {
        "queue": QUEUE,
        "code": "no-age",
        "subject": f"{QUEUE}_{locals_[0]}",
        "mended": False,
    } in json.loads(told.stdout)["faults"]
    mended = command("--repair")
    assert mended.exit_code == 0
    assert "31 faults mended." in mended.stdout
    assert command().output == "31 tasks in 1 queue: all sound.\n"


def test_the_command_without_any_data(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CALLBOARD_REDIS_URL", "redis://127.0.0.1:9/0")
    away = command()
    assert away.exit_code == 3
    assert away.stderr.startswith("callboard: Redis does not answer")
    assert away.stderr.count("\n") == 1
    monkeypatch.delenv("CALLBOARD_REDIS_URL")
    monkeypatch.setenv("CALLBOARD_DATA_DIR", str(tmp_path / "nothing"))
    nowhere = command("--repair")
    assert nowhere.exit_code == 2
    assert "There is nothing to check" in nowhere.stderr


def test_every_fault_is_described_and_met_here() -> None:
    told = Path(__file__).read_text(encoding="utf-8")
    assert [code for code in FAULTS if f'"{code}"' not in told] == []
