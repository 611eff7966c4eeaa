"""A program that names its Redis, and a worker that has one: they must be the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import dramatiq
from callboard import CallboardBroker
dramatiq.set_broker(CallboardBroker({arguments}))
"""


def run(folder: Path, arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    (folder / "sender.py").write_text(PROGRAM.format(arguments=arguments))
    environment = {**os.environ, "CALLBOARD_APPS": "none", "CALLBOARD_OPS_PORT": "0", **settings}
    return subprocess.run(
        [sys.executable, "-m", "callboard_worker"],
        env={**environment, "CALLBOARD_MODULES": "sender.py"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("'redis://:secret@127.0.0.1:1/0'", "127.0.0.1:1/0, namespace cb, this worker 127.0.0.1:2/0"),
        ("namespace='mine'", "127.0.0.1:2/0, namespace mine, this worker 127.0.0.1:2/0, namespace cb"),
    ],
    ids=["redis", "namespace"],
)
def test_a_worker_refuses_a_program_that_sends_elsewhere(tmp_path: Path, arguments: str, told: str) -> None:
    ran = run(tmp_path, arguments, CALLBOARD_REDIS_URL="redis://127.0.0.1:2/0")
    assert ran.returncode == 2
    assert told in ran.stderr
    assert "secret" not in ran.stderr
