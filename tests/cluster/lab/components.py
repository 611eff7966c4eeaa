"""The lab's own processes: etcd, the control plane, Prometheus, the node agent. They end with us."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class Components:
    """Processes by name, each with a log in `folder`. A stopped one may be started again as it was."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._commands: dict[str, list[str]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def add(
        self, name: str, program: Path, *arguments: str, flags: Mapping[str, object] | None = None
    ) -> None:
        """Start `program ARGUMENTS --FLAG=VALUE …` under that name."""
        given = [f"--{flag}={value}" for flag, value in (flags or {}).items()]
        self._commands[name] = [str(program), *arguments, *given]
        self.start(name)

    def start(self, name: str) -> None:
        """Start a component that was added before and does not run."""
        if self.alive(name):
            raise RuntimeError(f"{name} runs already")
        # The kernel ends it when this process dies, however it dies: nothing stays behind on the machine.
        command = ["setpriv", "--pdeathsig", "KILL", *self._commands[name]]
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM, patience_seconds: float = 15) -> None:
        """Send the signal, and SIGKILL when the component outlasts the patience."""
        process = self._running.pop(name)
        process.send_signal(number)
        try:
            process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        """The last one started goes first."""
        for name in reversed(self.names()):
            self.stop(name)

    def alive(self, name: str) -> bool:
        """Whether the component runs."""
        return name in self._running and self._running[name].poll() is None

    def names(self) -> Sequence[str]:
        """What was started and not stopped, in order."""
        return list(self._running)

    def log(self, name: str) -> Path:
        """Its standard output and error."""
        return self._folder / f"{name}.log"

    def complain_about_the_dead(self) -> None:
        """Raise when a component ended by itself, with the end of its log."""
        for name, process in self._running.items():
            if process.poll() is not None:
                end = "\n".join(self.log(name).read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"{name} ended with status {process.returncode}:\n{end}")
