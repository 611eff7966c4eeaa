"""Redis Cluster and Sentinel: everything works there too, and goes on when a primary dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis

from callboard import control, inspector
from callboard.catalog import timetable
from callboard.catalog.schedule import Schedule
from callboard.errors import Unconfirmed
from callboard.events import stream
from callboard.handle import TaskHandle
from callboard.records.ids import queue_of, split
from callboard.records.state import State
from callboard.storage import default
from callboard.storage.connection import AsyncConnection, Connection
from callboard.submit import Submission, SubmitLimits, submit
from tests.support.board import Board, insist
from tests.support.cluster_servers import Cluster, Guarded, Node, synchronised
from tests.support.ledger import VARIABLE, Ledger
from tests.support.served_api import KEY, served_api
from tests.support.waiting import wait_until
from tests.support.worker_process import BODIES, ServiceProcess

Services = Callable[..., ServiceProcess]
Servers = Cluster | Guarded

LEASE_SECONDS = 3.0
KINDS: dict[str, Callable[[Path], Servers]] = {"cluster": Cluster, "sentinel": Guarded}


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that nobody kills."""
    with KINDS[request.param](tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture(params=KINDS)
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    """Servers of which one will be killed."""
    with KINDS[request.param](tmp_path / "servers") as made:
        yield made


def board_of(servers: Servers, namespace: str) -> Board:
    return Board(Connection(servers.url, namespace=namespace))


def start_worker(
    services: Services, servers: Servers, ledger: Ledger, lease: float = LEASE_SECONDS
) -> ServiceProcess:
    settings = {
        "MODULES": BODIES,
        "WORKER_SLOTS": 8,
        VARIABLE: ledger.path,
        "WORKER_LEASE_SECONDS": lease,
    }
    return services("callboard_worker", servers.url, **settings)


def test_the_doors_of_python(shared: Servers, namespace: str, services: Services, ledger: Ledger) -> None:
    """Submit, run, wait, look, cancel, retry, list, purge, with queues on every node."""
    board = board_of(shared, namespace)
    keys, run = board.keys, board.run
    lease = 40.0
    start_worker(services, shared, ledger, lease).ready()
    quick = [task for queue in ("threads", "boxes") for task in board.submit(f"{queue}.quick", 120)]
    naps = board.submit("loop.nap", 5, payload={"seconds": 0.1})
    delayed = board.submit("threads.quick", 5, delay_ms=500)
    twice = board.submit("threads.fail", payload={"times": 1})
    [failed] = board.submit("threads.discard")
    [talker] = board.submit("threads.talk", payload={"lines": 5})
    assert TaskHandle(naps[0], board.connection).result(timeout=20) == 0.1
    board.await_state([*quick, *naps, *delayed, *twice, talker], State.COMPLETED)
    assert set(ledger.starts().values()) == {1, 2}
    assert len(run(inspector.logs(keys, talker, 0, 10)).items) == 5

    [sleeper] = board.submit("boxes.nap", payload={"seconds": 60})
    wait_until(lambda: sleeper in ledger.running(), 20, "the sleeper")
    asked = time.monotonic()
    assert board.cancel(sleeper) is False
    board.await_state([sleeper], State.CANCELLED)
    # By the channel of its own, not when the lease is renewed, at every quarter.
    assert time.monotonic() - asked < lease / 4
    board.await_state([failed], State.FAILED)
    run(control.retry(keys, failed))
    wait_until(
        lambda: board.record(failed).attempt == 2 and board.state(failed) is State.FAILED, 20, "a retry"
    )

    later = board.submit("threads.quick", 7, delay_ms=3_600_000)
    assert board.cancel(later[0])
    assert run(control.purge(keys, "threads", State.PENDING)) == 6
    assert run(control.pause(keys, "boxes"))
    [held] = board.submit("boxes.quick")
    assert board.state(held) is State.QUEUED
    assert run(control.resume(keys, "boxes"))
    board.await_state([held], State.COMPLETED)

    listed: list[str] = []
    cursor = None
    while True:
        page = run(inspector.find(keys, inspector.TaskFilter(), limit=50, cursor=cursor))
        listed += [task.id for task in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    everything = {*quick, *naps, *delayed, *twice, failed, talker, sleeper, later[0], held}
    assert set(listed) == everything
    assert len(listed) == len(everything)
    assert {view.name for view in run(inspector.queues(keys))} >= {queue_of(task) for task in everything}
    assert len(run(inspector.workers(keys))) == 1
    assert run(stream.read(keys.queue("threads"), "0-0"))
    assert board.faults() == []
    board.connection.close()


async def test_the_doors_of_an_event_loop(
    shared: Servers, namespace: str, services: Services, ledger: Ledger
) -> None:
    start_worker(services, shared, ledger).ready()
    connection = AsyncConnection(shared.url, namespace=namespace)
    made = [
        Submission(name=f"{queue}.quick", queue=queue) for queue in ("threads", "boxes") for _ in range(10)
    ]
    accepted = await connection.run(submit(connection.keys, made))
    assert {answer.problem for answer in accepted} == {None}
    board = board_of(shared, namespace)
    for answer in accepted:
        record = await TaskHandle(answer.id, board.connection).await_end(timeout=20)
        assert record.state is State.COMPLETED
    await default.aclose()
    await connection.close()
    board.connection.close()


def test_the_door_of_http_and_the_clock(
    shared: Servers, namespace: str, services: Services, ledger: Ledger, tmp_path: Path
) -> None:
    """API and scheduler as processes: submit and wait, list, cancel, retry, and a schedule that fires."""
    board = board_of(shared, namespace)
    start_worker(services, shared, ledger).ready()
    services("callboard_scheduler", shared.url).ready()
    schedule = Schedule(id="each", task="threads.quick", interval_seconds=1)
    board.run(timetable.create(board.keys, schedule))
    headers = {"Authorization": f"Bearer {KEY}"}
    with (
        served_api(shared.url, namespace, tmp_path / "api.log") as url,
        httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as http,
    ):
        body = {"name": "boxes.quick", "payload": {"number": 7}}
        accepted = http.post("/v1/tasks", json=body)
        assert accepted.status_code == 202, accepted.text
        path = f"/v1/tasks/{accepted.json()['id']}"
        done = http.get(path, headers={"Prefer": "wait=20"}, timeout=30)
        assert done.status_code == 200, done.text
        assert (done.json()["state"], done.json()["result"]) == ("completed", 7)
        later = http.post("/v1/tasks", json={**body, "delay_seconds": 3_600})
        assert later.status_code == 202, later.text
        path = f"/v1/tasks/{later.json()['id']}"
        assert http.post(f"{path}/cancel").json()["state"] == "cancelled"
        assert http.post(f"{path}/retry").is_success
        wait_until(lambda: http.get(path).json()["state"] == "completed", 20, "what was retried")
        listed = http.get("/v1/tasks", params={"queue": "boxes"}).json()["items"]
        assert {task["id"] for task in listed} == {done.json()["id"], later.json()["id"]}
        assert {queue["name"] for queue in http.get("/v1/queues").json()["items"]} >= {"boxes", "threads"}
        assert len(http.get("/v1/workers").json()["items"]) == 1
    wait_until(lambda: board.size("threads", State.COMPLETED) >= 3, 20, "three firings")
    board.connection.close()


async def test_replicated_is_confirmed_by_a_replica_and_refused_without(own: Servers, namespace: str) -> None:
    """A replica has a task when its submit returns; without one, the task is stored and not confirmed."""
    limits = SubmitLimits(confirmed_within_ms=20_000)
    blocking = Connection(own.url, namespace=namespace)
    awaited = AsyncConnection(own.url, namespace=namespace)
    # Queues on each of a cluster's nodes.
    queues = [f"queue{number}" for number in range(12)]
    wanted = [Submission(name="any", queue=queue) for queue in queues]
    replicas = {}
    for queue in queues:
        replica = replica_of(own, blocking.keys.queue(queue).prefix)
        replicas[queue] = redis.Redis(port=replica.port)
        if isinstance(own, Cluster):
            replicas[queue].execute_command("READONLY")
    for _ in range(10):
        for answer in (
            *blocking.run(submit(blocking.keys, wanted, limits)),
            *await awaited.run(submit(awaited.keys, wanted, limits)),
        ):
            assert answer.problem is None
            queue, local = split(answer.id)
            assert replicas[queue].exists(blocking.keys.queue(queue).mutable(local)), queue

    gone = replica_of(own, blocking.keys.queue("queue0").prefix)
    gone.kill()
    # Whoever waits in vain waits to the end, once a queue: so few of each, and time for a slow replica.
    limits = SubmitLimits(confirmed_within_ms=3_000)
    without = [one for one in wanted if replica_of(own, blocking.keys.queue(one.queue).prefix) is gone]
    wanted = [*without[:2], *(one for one in wanted if one not in without)]
    answers = [
        *blocking.run(submit(blocking.keys, wanted, limits)),
        *await awaited.run(submit(awaited.keys, wanted, limits)),
    ]
    for answer in answers:
        confirmed = replica_of(own, blocking.keys.queue(split(answer.id)[0]).prefix) is not gone
        assert isinstance(answer.problem, type(None) if confirmed else Unconfirmed), answer
        assert blocking.run(inspector.get(blocking.keys, answer.id)) is not None
    assert any(answer.problem for answer in answers)
    for client in replicas.values():
        client.close()
    blocking.close()
    await awaited.close()


def replica_of(servers: Servers, prefix: str) -> Node:
    """The replica of the node that serves `prefix`."""
    return servers.replica if isinstance(servers, Guarded) else servers.primary_of(prefix)[1]


@pytest.mark.timeout(180)
def test_a_primary_dies_while_tasks_run(
    own: Servers, namespace: str, services: Services, ledger: Ledger
) -> None:
    """Its replica takes over: what runs goes on and ends once, what waits is run, what is new is taken.

    Replication is asynchronous, so what the primary had not passed on is lost: here it had passed on all.
    """
    board = board_of(own, namespace)
    workers = [start_worker(services, own, ledger).ready() for _ in range(2)]
    running = [
        task
        for queue in ("threads", "boxes")
        for task in board.submit(f"{queue}.nap", 4, payload={"seconds": 15})
    ]
    wait_until(lambda: len(ledger.starts()) == 8, 30, "eight bodies")
    waiting = board.submit("threads.quick", 20, delay_ms=6_000)
    primary = kill_primary(own, board.keys.queue("threads").prefix)
    died = time.monotonic()
    fresh = board.prepare("threads.quick", 20)
    insist(lambda: board.send(fresh), 60)
    accepted = time.monotonic() - died
    board.await_end([one.task_id for one in fresh if one.task_id], 60)
    resumed = time.monotonic() - died
    records = board.await_end(running + waiting, 60)
    print(f"{primary.port} died: a submit taken after {accepted:.1f} s, new work done after {resumed:.1f} s")
    assert {record.state for record in records} == {State.COMPLETED}
    assert {len(record.attempts) for record in records} == {1}
    assert {record.interruptions for record in records} == {()}
    assert ledger.repeated() == {}
    # The promise is for crashes of a server; here the others have to see it first.
    assert resumed < 30
    assert all(worker.alive for worker in workers)
    [sleeper] = board.submit("boxes.nap", payload={"seconds": 60})
    wait_until(lambda: sleeper in ledger.running(), 20, "the sleeper")
    board.cancel(sleeper)
    board.await_state([sleeper], State.CANCELLED)
    assert board.faults() == []
    board.connection.close()


def kill_primary(servers: Servers, prefix: str) -> Node:
    """Kill the node that serves `prefix`, once its replica has all that it has."""
    primary = servers.primary if isinstance(servers, Guarded) else servers.primary_of(prefix)[0]
    servers.expect_a_death()
    wait_until(lambda: synchronised(primary), 20, "a replica in step", poll=0)
    primary.kill()
    return primary
