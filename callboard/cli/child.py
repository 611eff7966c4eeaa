"""A child process that is kept running: its output with its name in front, started again when it dies."""

from __future__ import annotations

import http.client
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Protocol

from callboard import clock

#: Pauses before a start after a death: the first, and the longest.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
#: A process that lived this long did start; its next death is a new story.
STEADY_SECONDS = 20.0
#: What a process that has used up its grace gets after the second SIGTERM.
LAST_WORD_SECONDS = 3.0
_LAST_LINES_SECONDS = 1.0
_LONGEST_LINE = 64 * 1024
_PROBE_SECONDS = 2.0
_STOP_POLL_SECONDS = 0.05


class Watcher(Protocol):
    """Is told of every process; see `guard.Guard`."""

    def watch(self, pid: int, role: str) -> None: ...
    def forget(self, pid: int) -> None: ...


Say = Callable[[str, str], None]


class Child:
    """One service of a supervisor.

    name: stands in front of its lines. command, environment: how it is started, each time anew.
    probe: host, port and path of its readiness probe; None: ready as soon as it runs.
    say: takes (name, line); called from several threads.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Callable[[], Mapping[str, str]],
        *,
        say: Say,
        watcher: Watcher,
        probe: tuple[str, int, str] | None = None,
    ) -> None:
        self.name = name
        #: How often it ended without being asked to.
        self.deaths = 0
        #: Exit code of the last death, negative for a signal.
        self.last_code: int | None = None
        self.ended = threading.Event()
        self._command = list(command)
        self._environment = environment
        self._say = say
        self._watcher = watcher
        self._probe = probe
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._renewing = False
        self._thread = threading.Thread(target=self._keep, name=f"keep-{name}", daemon=True)

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it, and keep it running until `stop`."""
        self._thread.start()

    def ready(self) -> bool:
        """Whether its probe answers 200 (or it runs, if it has none)."""
        if self.pid is None or self._probe is None:
            return self.pid is not None
        host, port, path = self._probe
        connection = http.client.HTTPConnection(host, port, timeout=_PROBE_SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def renew(self, grace_seconds: float) -> None:
        """End the process in order and start it anew; returns when the old one is gone."""
        with self._lock:
            process, self._renewing = self._process, True
        if process is not None:
            self._end(process, grace_seconds, threading.Event())

    def stop(self, grace_seconds: float, hurry: threading.Event) -> None:
        """End it: SIGTERM; after the grace, or at `hurry`, SIGTERM again; SIGKILL after a last word."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None:
            self._end(process, grace_seconds, hurry)
        if self._thread.is_alive():
            self._thread.join()

    def _end(self, process: subprocess.Popen[bytes], grace_seconds: float, hurry: threading.Event) -> None:
        process.send_signal(signal.SIGTERM)
        deadline = clock.monotonic() + grace_seconds
        hurried = False
        while process.poll() is None:
            now = clock.monotonic()
            if not hurried and (hurry.is_set() or now >= deadline):
                # A worker takes the second SIGTERM as "at once" and gives its tasks back.
                process.send_signal(signal.SIGTERM)
                hurried, deadline = True, now + LAST_WORD_SECONDS
            elif now >= deadline:
                self._say(self.name, "does not end; killed")
                process.kill()
                process.wait()
                return
            clock.sleep(_STOP_POLL_SECONDS)

    def _keep(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        try:
            while True:
                began = clock.monotonic()
                process, reader = self._spawn()
                if process is None:
                    return
                code = process.wait()
                self._watcher.forget(process.pid)
                if reader is not None:
                    reader.join(_LAST_LINES_SECONDS)
                with self._lock:
                    self._process = None
                    renewed, self._renewing = self._renewing, False
                if self._stopping.is_set():
                    return
                if renewed:
                    pause = FIRST_PAUSE_SECONDS
                    continue
                if clock.monotonic() - began >= STEADY_SECONDS:
                    pause = FIRST_PAUSE_SECONDS
                self.last_code, self.deaths = code, self.deaths + 1
                self._say(self.name, f"{how_it_ended(code)}; starting it again in {pause:g} s")
                if self._stopping.wait(pause):
                    return
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        finally:
            self.ended.set()

    def _spawn(self) -> tuple[subprocess.Popen[bytes] | None, threading.Thread | None]:
        with self._lock:
            if self._stopping.is_set():
                return None, None
            process = subprocess.Popen(
                self._command,
                env=dict(self._environment()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # The terminal's Ctrl-C is for the supervisor, which stops its children in order.
                start_new_session=True,
            )
            self._process = process
            self._watcher.watch(process.pid, "service")
        assert process.stdout is not None
        # A grandchild may hold the pipe for longer than the process lives, so nobody waits for its end.
        reader = threading.Thread(
            target=self._read, args=(process.stdout,), name=f"read-{self.name}", daemon=True
        )
        reader.start()
        return process, reader

    def _read(self, stream: IO[bytes]) -> None:
        with stream, suppress(ValueError):
            while line := stream.readline(_LONGEST_LINE):
                self._say(self.name, line.decode("utf-8", "replace").rstrip("\r\n"))


def how_it_ended(code: int) -> str:
    """`ended with exit code 3`, `was ended by SIGKILL`."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
