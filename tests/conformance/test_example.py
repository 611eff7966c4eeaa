"""The example for users of Dramatiq, as it is: sent by its script, run by our worker and by its CLI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from callboard.inspector import TaskFilter, find, logs
from callboard.records.state import State
from tests.conformance.processes import ROOT, Hosts
from tests.support.waiting import wait_until

PROGRAM = ROOT / "examples" / "dramatiq_program.py"


@pytest.mark.parametrize("kind", ["serve", "cli"])
def test_the_example(kind: str, redis_url: str, namespace: str, tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, redis_url, namespace, program=PROGRAM)
    try:
        worker = hosts.start(kind)
        environment = {
            **os.environ,
            "CALLBOARD_REDIS_URL": redis_url,
            "CALLBOARD_NAMESPACE": namespace,
        }
        subprocess.run([sys.executable, PROGRAM], env=environment, check=True, timeout=60)
        wait_until(lambda: hosts.board.size("counting", State.COMPLETED) == 4, 30, "four messages to be done")
        page = hosts.board.run(find(hosts.connection.keys, TaskFilter(queues=("counting",)), limit=10))
        tasks = sorted((task.name, str(hosts.board.record(task.id).result)) for task in page.items)
        assert tasks == [("count_words", "6"), ("count_words", "7"), ("say", "None"), ("say", "None")]
        if kind == "serve":
            lines = [
                line.message
                for task in page.items
                for line in hosts.board.run(logs(hosts.connection.keys, task.id, after=0, limit=10)).items
            ]
            assert sorted(lines) == ["the ferry's log has 6 words", "the text has 6 words"]
        worker.term()
        assert worker.wait(30) == 0
        assert hosts.board.faults() == []
    finally:
        hosts.close()
