"""Every script is executed and its reply is lost, four times in a row and then now and then.

Three losses use up the resends inside one call, so whoever called it sees an error and has to go on. In the
end each task has the outcome that it would have had, its body ran as often as it should, and nothing stands
where nobody looks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import dramatiq
import pytest

from callboard import control, inspector
from callboard.broker.broker import CallboardBroker
from callboard.catalog import published, timetable
from callboard.catalog.contract import contract_of
from callboard.catalog.schedule import Schedule
from callboard.doctor import Checkup
from callboard.errors import Conflict, TaskNotFound
from callboard.maintenance.policy import Policy
from callboard.maintenance.pruner import Pruner, strip
from callboard.maintenance.sampler import figures, statistics
from callboard.maintenance.sweeper import Sweeper
from callboard.records import ids
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command, Operation, ScriptCall
from callboard.storage.scripts import Script, script
from tests.support import chaos_actors
from tests.support.api_server import Hand
from tests.support.board import Board, insist
from tests.support.ledger import VARIABLE, Ledger
from tests.support.proxy import Proxy, Rule, command, runs
from tests.support.redis_server import new_server
from tests.support.waiting import wait_until
from tests.support.worker_process import BODIES, ServiceProcess

T = TypeVar("T")

MODULES = f"{BODIES},{chaos_actors.__file__}"
PATIENCE_SECONDS = 30.0

#: Scripts of a working day, a death, a worker's first and last minutes, the scheduler, the housekeeping.
DAY = [
    "broker/submit", "broker/turn", "broker/renew", "broker/note", "broker/cancel", "broker/retry",
    "broker/delete", "broker/purge", "broker/pause", "maintenance/promote", "maintenance/lease",
    "maintenance/outbox", "maintenance/delivered", "catalog/show", "catalog/enrol",
]  # fmt: skip
#: Plain commands of that day: tokens that wake somebody, presence, the registry.
PLAIN = ["BLPOP", "INFO"]
DEATH = ["maintenance/expired", "maintenance/rescue"]
LIFE = ["storage/schema", "catalog/publish", "broker/forget"]
SCHEDULER = ["catalog/tick", "catalog/swap", "maintenance/sample"]
HOUSEKEEPING = [
    "maintenance/prune", "maintenance/strip", "maintenance/tidy", "maintenance/moment", "maintenance/tallies",
    "catalog/touch", "catalog/prune", "doctor/examine", "doctor/orphans", "doctor/priorities", "broker/live",
    "broker/backlog", "broker/reweigh",
]  # fmt: skip


def find(name: str) -> Script:
    package, _, stem = name.partition("/")
    return script(f"callboard.{package}", stem)


def test_no_script_is_forgotten() -> None:
    """Each script that there is stands in one of the lists above."""
    root = Path(str(files("callboard")))
    found = {
        f"{path.parent.parent.name}/{path.stem}"
        for path in root.rglob("*.lua")
        if not path.read_text(encoding="utf-8").startswith("-- Fragment")
    }
    assert found == {*DAY, *DEATH, *LIFE, *SCHEDULER, *HOUSEKEEPING}


@dataclass(slots=True)
class Losses:
    """How many replies of a script were lost."""

    name: str
    rules: list[Rule]

    @property
    def count(self) -> int:
        return sum(rule.hits for rule in self.rules)

    def await_enough(self) -> None:
        wait_until(lambda: self.count >= 3, 30, f"three calls of {self.name}")


@dataclass(slots=True)
class Stage:
    """A server, the disturbed way to it, and a namespace seen from both sides."""

    server: EmbeddedServer
    proxy: Proxy
    board: Board
    ledger: Ledger
    folder: Path
    processes: list[ServiceProcess]

    @property
    def url(self) -> str:
        return self.proxy.url(self.server.url)

    def start(self, module: str = "callboard_worker", **settings: object) -> ServiceProcess:
        log = self.folder / f"{module}-{len(self.processes)}.log"
        if module == "callboard_worker":
            settings = {
                "MODULES": MODULES,
                "WORKER_SLOTS": 8,
                "WORKER_LEASE_SECONDS": 1.0,
                VARIABLE: self.ledger.path,
                **settings,
            }
        made = ServiceProcess(module, log, self.url, self.board.keys.namespace, **settings)
        self.processes.append(made)
        return made

    @contextmanager
    def losing(self, name: str) -> Iterator[Losses]:
        """Lose the replies of this script for a while."""
        match = command(name) if name.isupper() else runs(find(name))
        rules = [self.proxy.rule("drop-reply", match, times=4), self.proxy.rule("drop-reply", match, every=4)]
        losses = Losses(name, rules)
        try:
            yield losses
            # Some scripts are called once in a while only, by loops that never end.
            losses.await_enough()
        finally:
            self.proxy.clear()
        print(f"{name}: {losses.count} replies lost")

    def do(self, operation: Callable[[], Any]) -> Any:
        """Run what `operation` makes, through the proxy, until it is answered."""
        return insist(lambda: self.board.through.run(operation()), PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, server_kind: str) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("lost-replies")
    with new_server(folder / "redis", server_kind) as server:
        assert server.port is not None
        with Proxy(server.port) as proxy:
            direct = Connection(server.url, namespace="lost")
            through = Connection(proxy.url(server.url), namespace="lost")
            made = Stage(server, proxy, Board(direct, through), Ledger(folder / "ledger"), folder, [])
            yield made
            for process in made.processes:
                process.close()
            direct.close()
            through.close()


@pytest.fixture(scope="module")
def crew(stage: Stage) -> ServiceProcess:
    """The worker that works through all of these days."""
    return stage.start(WORKER_QUEUES="threads,boxes,loop,actors").ready()


@pytest.mark.parametrize("name", DAY + PLAIN)
def test_a_working_day(name: str, stage: Stage, crew: ServiceProcess) -> None:
    """Everything that people and workers do with tasks, once, while one script's replies get lost."""
    with stage.losing(name):
        expected = live_through(stage)
    starts = stage.ledger.starts()
    assert {task: starts[task] for task in expected} == expected
    assert stage.board.faults() == []
    assert crew.alive


def live_through(stage: Stage) -> dict[str, int]:
    """One day; how often each body should have run."""
    board, keys, do = stage.board, stage.board.keys, stage.do
    submit = partial(submit_in_peace, stage)

    once = submit("threads.quick", 40) + submit("boxes.quick", 10)
    twice = submit("threads.fail", 5, payload={"times": 1})
    failed = submit("threads.discard", 3)
    talkers = submit("threads.talk", 3, payload={"lines": 20, "seconds": 1.0})
    delayed = submit("threads.quick", 10, delay_ms=400)
    [sleeper] = submit("boxes.nap", payload={"seconds": 60})
    pipes = [pipe(board, number) for number in range(3)]

    # What waits is cancelled, purged, or moved about.
    later = submit("loop.nap", 6, payload={"seconds": 0}, delay_ms=3_600_000)
    assert do(lambda: control.cancel(keys, later[0])).done
    assert do(lambda: control.purge(keys, "loop", State.PENDING)) in range(6)
    do(lambda: control.pause(keys, "loop"))
    held = submit("loop.nap", 2, payload={"seconds": 0})
    assert do(lambda: control.cancel(keys, held[0])).done
    assert board.state(held[1]) is State.QUEUED
    do(lambda: control.resume(keys, "loop"))

    # What failed is tried again by hand; what has ended is deleted, or submitted anew.
    board.await_state(failed, State.FAILED)
    again = do(lambda: control.retry(keys, failed[0], nonce="by-hand"))
    assert again.state is not State.CANCELLED
    board.await_state(once, State.COMPLETED)
    gone = once.pop()
    delete(stage, gone)
    fresh_id = ids.new_id("threads")
    fresh = do(lambda: control.resubmit(keys, once[0], overrides={"task_id": fresh_id}))
    assert fresh.id == fresh_id

    # What runs is stopped.
    wait_until(lambda: stage.ledger.starts()[sleeper], 20, "the sleeper")
    do(lambda: control.cancel(keys, sleeper))
    board.await_state([sleeper, later[0], held[0]], State.CANCELLED, 20)

    completed = [
        *once,
        *twice,
        *talkers,
        *delayed,
        held[1],
        fresh_id,
        *(task for pair in pipes for task in pair),
    ]
    board.await_state(completed, State.COMPLETED)
    wait_until(
        lambda: board.record(failed[0]).attempt == 2 and board.state(failed[0]).terminal, 20, "the retry"
    )
    for talker in talkers:
        lines = board.run(inspector.logs(keys, talker, 0, 100)).items
        assert [line.message for line in lines] == [f"line {number}" for number in range(1, 21)]
        assert (board.record(talker).progress or {}).get("current") == 20
    for first, last in pipes:
        assert board.record(last).result == 2 * board.record(first).payload["number"]
    assert board.run(inspector.get(keys, gone)) is None
    assert all(board.run(inspector.get(keys, task)) is None for task in later[1:])
    outbox = keys.queue("actors").outbox
    wait_until(lambda: not board.connection.execute(Command("ZCARD", outbox)), 10, "an empty outbox")

    expected = dict.fromkeys([*completed, gone, sleeper, *failed[1:]], 1)
    expected |= dict.fromkeys([*twice, failed[0]], 2)
    return expected | dict.fromkeys([*later, held[0]], 0)


def submit_in_peace(stage: Stage, name: str, count: int = 1, **options: Any) -> list[str]:
    """Submit through the proxy; sent again, the same ids are the same tasks."""
    made = stage.board.prepare(name, count, **options)
    return stage.board.send(made, PATIENCE_SECONDS)


def pipe(board: Board, number: int) -> tuple[str, str]:
    """A pipeline of two messages; the ids of their tasks. Sent by the undisturbed way."""
    broker = CallboardBroker(connection=board.connection)
    messages: list[dramatiq.Message[int]] = [
        dramatiq.Message(queue_name="actors", actor_name=name, args=(), kwargs=kwargs, options={})
        for name, kwargs in (("double", {"number": number}), ("keep", {}))
    ]
    sent = dramatiq.pipeline(messages, broker=broker).run()
    return broker.task_id(sent.messages[0]), broker.task_id(sent.messages[1])


def delete(stage: Stage, task_id: str) -> None:
    """Whoever deletes and gets an error tries again, and may find it gone."""
    try:
        stage.do(lambda: control.delete(stage.board.keys, task_id))
    except TaskNotFound:
        assert stage.board.run(inspector.get(stage.board.keys, task_id)) is None


@pytest.mark.parametrize("name", DEATH)
def test_a_death(name: str, stage: Stage, crew: ServiceProcess) -> None:
    """A worker is killed; who looks after its tasks does not hear what he has done."""
    board = stage.board
    victim = stage.start(WORKER_QUEUES="graves").ready()
    tasks = board.submit("graves.nap", 6, payload={"seconds": 1.0})
    wait_until(lambda: sum(stage.ledger.starts()[task] for task in tasks) == 6, 20, "six bodies")
    with stage.losing(name):
        victim.kill()
        heir = stage.start(WORKER_QUEUES="graves").ready()
        records = board.await_end(tasks, 30)
    starts = stage.ledger.starts()
    for record in records:
        assert record.state is State.COMPLETED
        assert [attempt.outcome for attempt in record.attempts] == ["lost", "completed"]
        assert record.interruptions == ()
        assert starts[record.id] == 2
    heir.term()
    assert heir.wait(20) == 0
    assert board.faults() == []


@pytest.mark.parametrize("name", LIFE)
def test_the_first_and_the_last_minute(name: str, stage: Stage) -> None:
    """A worker starts, works, and is told to go."""
    board = stage.board
    with stage.losing(name):
        newcomer = stage.start(WORKER_QUEUES="graves").ready()
        tasks = board.submit("graves.nap", 4, payload={"seconds": 0.1})
        records = board.await_end(tasks, 30)
        newcomer.term()
        assert newcomer.wait(20) == 0
    assert {record.state for record in records} == {State.COMPLETED}
    assert {len(record.attempts) for record in records} == {1}
    assert "graves.nap" in board.run(published.read(board.keys)).tasks
    assert newcomer.id not in board.workers()
    assert board.faults() == []


@pytest.mark.parametrize("name", SCHEDULER)
def test_the_scheduler(name: str, stage: Stage) -> None:
    """It plans and fires a schedule of each second; each second gets one task, and none is left out."""
    board, keys = stage.board, stage.board.keys
    clock = stage.start("callboard_scheduler").ready()
    schedule = Schedule(id=f"each-{ids.new_id('x')[2:]}", task="a.tick", queue="ticks", interval_seconds=1)
    with stage.losing(name):
        # Whoever makes one and gets an error may find on the next try that it is there.
        with suppress(Conflict):
            stage.do(lambda: timetable.create(keys, schedule))
        wait_until(lambda: fired(board, schedule) >= 4, 20, "four firings")
    before = fired(board, schedule)
    wait_until(lambda: fired(board, schedule) > before, 10, "another firing")
    clock.term()
    assert clock.wait(10) == 0
    entry = board.run(timetable.get(keys, schedule.id))
    assert entry.last_nominal_ms is not None
    # From the first one that was due to the last one that fired.
    assert fired(board, schedule) == (entry.last_nominal_ms - entry.created_ms) // 1000
    board.run(timetable.delete(keys, schedule.id))
    assert board.faults() == []


def call(what: Script, prefix: str) -> Operation[Any]:
    """A script that only tells something, as it is."""
    return (yield ScriptCall(what, prefix, ()))


def fired(board: Board, schedule: Schedule) -> int:
    found = board.run(inspector.find(board.keys, inspector.TaskFilter(queues=("ticks",)), limit=200))
    return sum(task.schedule_id == schedule.id for task in found.items)


@pytest.mark.parametrize("name", HOUSEKEEPING)
def test_housekeeping(name: str, stage: Stage) -> None:
    """What is done in passing or by hand: it may be done twice, and goes on where it was."""
    board, keys, through = stage.board, stage.board.keys, stage.board.through
    queue = f"attic-{name.replace('/', '-')}"
    contracts = [contract_of(lambda: None, name=f"{queue}.a", queue=queue)]
    board.run(published.publish(keys, contracts, [queue], "tests-1"))
    done = board.submit(f"{queue}.a", 30, queue=queue)
    hand = Hand(board.connection)
    for task in [task for _ in range(3) for task in hand.claim(queue, 10)]:
        hand.complete(task, "x" * 100)
    waiting = board.submit(f"{queue}.a", 5, queue=queue)
    # The doctor finds half of an outbox item.
    board.connection.execute(Command("ZADD", keys.queue(queue).outbox, 1, "nobody:1:1"))
    pruner, sweeper = Pruner(lambda _: Policy(completed_count=10)), Sweeper(lambda _: Policy())
    with stage.losing(name):
        for _ in range(4):
            insist(lambda: pruner.run_once(through, queue), PATIENCE_SECONDS)
            insist(lambda: sweeper.run_once(through, queue), PATIENCE_SECONDS)
            stage.do(lambda: strip(keys, queue, older_ms=0))
            stage.do(lambda: statistics(keys, queue))
            stage.do(lambda: figures(keys, queue))
            stage.do(lambda: published.refresh(keys, contracts, [queue], "tests-1"))
            stage.do(lambda: published.prune(keys))
            insist(lambda: list(Checkup(through, mend=True).faults()), PATIENCE_SECONDS)
            stage.do(lambda: call(find("broker/live"), keys.queue(queue).prefix))
            assert stage.do(lambda: control.reweigh(keys, queue, "default", 2)) == len(waiting)
    assert board.size(queue, State.COMPLETED) == 10
    kept = [task for task in done if board.run(inspector.get(keys, task)) is not None]
    assert kept == done[-10:]
    assert {board.record(task).result for task in kept} == {None}
    assert {board.state(task) for task in waiting} == {State.QUEUED}
    assert board.run(statistics(keys, queue)).finished == 30
    assert f"{queue}.a" in board.run(published.read(keys)).tasks
    assert board.faults() == []
