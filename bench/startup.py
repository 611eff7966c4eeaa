"""From the command `callboard up` to its ready line, with an embedded server and the shipped applications."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench import process
from bench.line import Line, Stage

TARGET_SECONDS = 5.0


def measure(stage: Stage) -> list[Line]:
    taken = [_once(stage, number) for number in range(stage.size(3, 1))]
    return [
        Line(
            "`callboard up` to its ready line",
            f"{median(taken):.1f} s",
            f"≤ {TARGET_SECONDS:g} s",
            median(taken) <= TARGET_SECONDS,
            f"median of {len(taken)}, worst {max(taken):.1f} s",
        )
    ]


def _once(stage: Stage, number: int) -> float:
    folder = stage.folder / f"up-{number}"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")}
    environment |= {"CALLBOARD_DATA_DIR": str(folder / "data")}
    command = [str(Path(sys.executable).parent / "callboard"), "up", "--port", "0"]
    with (folder / "log").open("wb") as log:
        started = time.perf_counter()
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=folder, bufsize=0
        )
        try:
            assert running.stdout is not None
            said = b""
            while b"callboard is ready" not in said:
                left = started + process.PATIENCE_SECONDS - time.perf_counter()
                if left <= 0 or not select.select([running.stdout], [], [], left)[0]:
                    raise TimeoutError(f"callboard up was not ready: {said!r}")
                if not (more := running.stdout.read(4096)):
                    raise RuntimeError("callboard up ended: " + (folder / "log").read_text()[-2000:])
                said += more
            return time.perf_counter() - started
        finally:
            process.end(running)
