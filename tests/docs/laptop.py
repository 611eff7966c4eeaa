"""A reader's laptop: a folder, a shell whose PATH has `callboard`, and `callboard up` running there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until

READY = "callboard is ready"
#: The address that the pages use.
SHOWN_URL = "http://127.0.0.1:8000"
_START_SECONDS = 60.0
_COMMAND_SECONDS = 60.0


class Laptop:
    """Runs shell lines in `folder`. `url`: the API's, once `up` has started it.

    data_dir: where the embedded server keeps its data, by default the folder's `.callboard`.
    """

    def __init__(self, folder: Path, data_dir: Path | None = None) -> None:
        self.folder = folder
        self.url = ""
        # What a shell with the environment activated has; and nothing of the outer settings.
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_PROXY": "127.0.0.1",
        }
        if data_dir is not None:
            self._environment["CALLBOARD_DATA_DIR"] = str(data_dir)

    def run(self, line: str, *, code: int | None = 0) -> str:
        """What a shell line prints on standard output; it must end with `code` (None: any)."""
        done = subprocess.run(
            ["bash", "-c", line.replace(SHOWN_URL, self.url or SHOWN_URL)],
            cwd=self.folder,
            env={**self._environment, "CALLBOARD_URL": self.url or SHOWN_URL},
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        told = f"$ {line}\nended with {done.returncode}\n{done.stdout}{done.stderr}"
        assert code is None or done.returncode == code, told
        return done.stdout

    @contextmanager
    def service(self, line: str, log: Path, *, until: str) -> Iterator[None]:
        """Keep a command running for the block, which begins when its log holds `until`; then Ctrl-C."""
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=self.folder,
                env={**self._environment, "CALLBOARD_OPS_PORT": "0"},
                stdout=out,
                stderr=out,
                # As in a terminal of its own: Ctrl-C must not reach the tests.
                start_new_session=True,
            )
        try:
            wait_until(
                lambda: until in log.read_text() or process.poll() is not None, _START_SECONDS, f"`{line}`"
            )
            assert process.poll() is None, log.read_text()
            yield
        except BaseException:
            print(log.read_text())  # pytest shows it beside the failure
            raise
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                process.wait(20)

    @contextmanager
    def up(self, line: str, *, log: Path | None = None) -> Iterator[None]:
        """Keep a `callboard up …` of a page running for the block, on a free port."""
        log = log or self.folder / "up.log"
        with self.service(f"{line} --port 0", log, until=READY):
            [told] = [shown for shown in log.read_text().splitlines() if shown.startswith(READY)]
            self.url = told.removeprefix(READY).removeprefix(": ")
            yield
