"""A program that is all slots and no runner, for tests that kill it: `python -m tests.support.slot_process`.

Takes a JSON object on its command line: modules, tasks as pairs of name and payload, and whether to fork
a process of its own. Starts the tasks in process slots, prints one JSON line once they report progress, and
waits to be killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings

from callboard_worker.slots.process import ProcessSlots
from tests.support.recording import Recorder, assignment


def main() -> None:
    order = json.loads(sys.argv[1])
    recorder = Recorder()
    tasks = [assignment(name, payload) for name, payload in order["tasks"]]
    group = ProcessSlots(len(tasks) + 1, recorder, modules=order["modules"], grace_seconds=60)
    group.start()
    for given in tasks:
        group.run(given)
    reports = [recorder.await_progress(given)["current"] for given in tasks]
    told = {"pids": list(group.pids.values()), "forkserver": group.forkserver.pid, "reports": reports}
    if order["fork"]:
        told["fork"] = _fork()
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    threading.Event().wait()


def _fork() -> int:
    """A process that has, and keeps, everything that was open here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # A fork beside threads, which is the point.
        pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid


if __name__ == "__main__":
    main()
