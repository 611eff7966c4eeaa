"""Children: how they are made from the user's modules, what they inherit, and what they leave alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard.catalog.loading import ModuleFailed
from callboard_worker.slots import kernel
from callboard_worker.slots.process import ProcessSlots
from tests.support.processes import MakeSlots, result, slot_maker
from tests.support.recording import Recorder, assignment, run


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def shared(recorder: Recorder) -> Iterator[ProcessSlots]:
    """Two slots for tests that need nothing of their own."""
    with slot_maker(recorder) as make:
        yield make(2, grace_seconds=20)


@pytest.fixture
def make(recorder: Recorder) -> Iterator[MakeSlots]:
    with slot_maker(recorder) as make:
        yield make


def test_children_live_in_a_session_of_their_own_and_ignore_the_terminal(
    shared: ProcessSlots, recorder: Recorder
) -> None:
    assert result(run(shared, recorder, assignment("slots.signals"))) == {"session": True, "group": True}
    pid = shared.pids["process-0"]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert result(run(shared, recorder, assignment("slots.who")))["pid"] == pid


def test_a_body_may_have_programs_and_processes_of_its_own(shared: ProcessSlots, recorder: Recorder) -> None:
    """What we do to our children's signals must not reach theirs."""
    given = assignment("slots.use_programs")
    ends = result(run(shared, recorder, given))
    assert ends == {"program": -signal.SIGTERM, "process": -signal.SIGTERM, "threads": 1}
    assert "printed by a forked process" in recorder.texts(given)
    assert "from a forked process" in recorder.texts(given)


def test_a_copy_that_comes_home_from_a_fork_speaks_for_nobody(
    shared: ProcessSlots, recorder: Recorder
) -> None:
    given = assignment("slots.fork_home")
    assert result(run(shared, recorder, given)) == shared.pids["process-0"]
    assert result(run(shared, recorder, assignment("slots.add", {"left": 1}))) == 2
    assert len(recorder.outcomes[given.task_id]) == 1


def test_a_child_has_nothing_that_is_not_its_own(make: MakeSlots, recorder: Recorder) -> None:
    facts = result(run(make(1), recorder, assignment("slots.environment")))
    # One thread: from Python 3.12 on each fork in a body would warn of any other.
    assert facts["threads"] == 1
    assert facts["parent"] == os.getpid()
    assert facts["oom"] > int(Path("/proc/self/oom_score_adj").read_text())
    # stdin, stdout, stderr, connection, control, lifeline, and the one that lists them.
    assert len(facts["descriptors"]) == 7, facts["descriptors"]


def test_random_numbers_are_not_the_siblings(make: MakeSlots, recorder: Recorder) -> None:
    group = make(1, tasks_per_child=1)
    first, second = (result(run(group, recorder, assignment("slots.random"))) for _ in range(2))
    assert first != second


def test_a_module_that_cannot_be_imported_stops_the_start_with_its_own_traceback(
    recorder: Recorder, tmp_path: Path
) -> None:
    (tmp_path / "broken_tasks.py").write_text("def helper():\n    return 1 / 0\n\nhelper()\n")
    group = ProcessSlots(1, recorder, modules=[str(tmp_path / "broken_tasks.py")])
    with pytest.raises(ModuleFailed) as failed:
        group.start()
    text = str(failed.value)
    assert "ZeroDivisionError" in text
    assert "broken_tasks.py" in text
    assert "line 2, in helper" in text
    for ours in ("nursery.py", "forkserver.py", "importlib"):
        assert ours not in text
    assert not group.ready()
    group.close(1)


def test_modules_that_start_threads_are_named_and_left_to_the_children(
    make: MakeSlots, recorder: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a module whose import leaves a thread running
    When slots start with it
    I expect the thread named, no fork from that process, and bodies that run nevertheless.
    """
    (tmp_path / "threaded_tasks.py").write_text(
        "import threading\n"
        "from callboard import task\n"
        "threading.Thread(target=threading.Event().wait, name='exporter', daemon=True).start()\n"
        "@task(queue='slots', name='slots.threaded')\n"
        "def threaded() -> int:\n"
        "    return threading.active_count()\n"
    )
    group = make(1, modules=[str(tmp_path / "threaded_tasks.py")])
    assert "exporter" in caplog.text
    assert "threaded_tasks.py" in caplog.text
    assert result(run(group, recorder, assignment("slots.threaded"))) == 2


def test_a_start_hook_that_fails_gives_the_task_back_unspent(
    make: MakeSlots, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_worker.slots.process_slot._PATIENT_STARTS", 1)
    (tmp_path / "hooked_tasks.py").write_text(
        "from callboard import on_child_start, task\n"
        "@on_child_start\n"
        "def connect():\n"
        "    raise ConnectionError('no database')\n"
        "@task(queue='slots', name='slots.hooked')\n"
        "def hooked() -> None: ...\n"
    )
    group = make(1, modules=[str(tmp_path / "hooked_tasks.py")])
    given = assignment("slots.hooked")
    outcome = run(group, recorder, given)
    assert (outcome.kind, outcome.counts) == ("retry", False)
    assert (outcome.retry_after_ms or 0) > 0
    assert "no database" in recorder.texts(given)[0]
    assert not group.ready()


def test_database_engines_are_disposed_in_each_child(
    make: MakeSlots, recorder: Recorder, tmp_path: Path
) -> None:
    """A stand-in for SQLAlchemy, which the library does not need: the same module and class names."""
    package = tmp_path / "sqlalchemy"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "engine" / "__init__.py").write_text(
        "class Engine:\n"
        "    disposed = []\n"
        "    def dispose(self, close=True):\n"
        "        self.disposed = [*self.disposed, close]\n"
    )
    (tmp_path / "database_tasks.py").write_text(
        "from callboard import task\n"
        "from sqlalchemy.engine import Engine\n"
        "engine = Engine()\n"
        "@task(queue='slots', name='slots.database')\n"
        "def database() -> list:\n"
        "    return engine.disposed\n"
    )
    group = make(1, modules=[str(tmp_path / "database_tasks.py")])
    assert result(run(group, recorder, assignment("slots.database"))) == [False]


def test_an_actor_of_dramatiq_runs_in_a_child(make: MakeSlots, recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "actor_tasks.py").write_text(
        "import dramatiq\n"
        "from dramatiq.brokers.stub import StubBroker\n"
        "from dramatiq.middleware import CurrentMessage\n"
        "dramatiq.set_broker(StubBroker())\n"
        "@dramatiq.actor\n"
        "async def double(number):\n"
        "    return [number * 2, CurrentMessage.get_current_message().message_id]\n"
    )
    group = make(1, modules=[str(tmp_path / "actor_tasks.py")])
    message = {
        "queue_name": "default",
        "actor_name": "double",
        "args": [21],
        "kwargs": {},
        "options": {},
        "message_id": "m-1",
        "message_timestamp": 0,
    }
    outcome = run(group, recorder, assignment("double", message=json.dumps(message).encode()))
    assert outcome.value == [42, "m-1"]


def test_without_adoption_children_still_run_and_die(
    make: MakeSlots, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel does not let us adopt (not Linux), the forkserver is the parent; statuses are lost."""
    monkeypatch.setattr(kernel, "adopt_orphans", lambda: False)
    group = make(1)
    assert result(run(group, recorder, assignment("slots.add", {"left": 1}))) == 2
    outcome = run(group, recorder, assignment("slots.die", {"how": "segfault"}))
    assert outcome.kind == "crashed"
    assert result(run(group, recorder, assignment("slots.add", {"left": 2}))) == 3


def test_logging_that_the_users_code_sets_up_anew_still_reaches_the_task(
    make: MakeSlots, recorder: Recorder, tmp_path: Path
) -> None:
    """In a hook, as frameworks do, and in a body: neither loses records, neither doubles them."""
    (tmp_path / "framework_tasks.py").write_text(
        "import logging, logging.config\n"
        "from callboard import on_child_start, task\n"
        "CONFIG = {'version': 1, 'disable_existing_loggers': False,\n"
        "    'handlers': {'console': {'class': 'logging.StreamHandler'}},\n"
        "    'root': {'handlers': ['console'], 'level': 'INFO'}}\n"
        "@on_child_start\n"
        "def setup():\n"
        "    logging.config.dictConfig(CONFIG)\n"
        "@task(queue='slots', name='slots.framework')\n"
        "def framework(again: bool = False) -> None:\n"
        "    logging.getLogger('app').info('a record')\n"
        "    if again:\n"
        "        logging.config.dictConfig(CONFIG)\n"
    )
    group = make(1, modules=[str(tmp_path / "framework_tasks.py")])
    for again in (False, True, False):
        given = assignment("slots.framework", {"again": again})
        run(group, recorder, given)
        assert recorder.lines(given) == [("info", "a record")]


def test_a_loop_that_a_body_closed_is_replaced(make: MakeSlots, recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "closing_tasks.py").write_text(
        "import asyncio\n"
        "from callboard import task\n"
        "LOOPS = []\n"
        "@task(queue='slots', name='slots.remember')\n"
        "async def remember() -> None:\n"
        "    LOOPS.append(asyncio.get_running_loop())\n"
        "@task(queue='slots', name='slots.close_loop')\n"
        "def close_loop() -> None:\n"
        "    LOOPS[0].close()\n"
    )
    group = make(1, modules=[str(tmp_path / "closing_tasks.py")])
    for name in ("slots.remember", "slots.close_loop", "slots.remember"):
        assert run(group, recorder, assignment(name)).kind == "completed"
