"""The supervisor: the whole platform as processes of one parent, on a laptop.

Embedded server (unless a Redis is given), API, workers, scheduler: started in that order, kept running,
stopped in the order that loses nothing. `callboard up` and `callboard demo` stand on it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from callboard import clock
from callboard.cli.child import Child, how_it_ended
from callboard.cli.guard import Guard
from callboard.cli.ports import free_port
from callboard.cli.preflight import PLATFORM_QUEUE, Inventory, Preflight, PreflightFailed
from callboard.cli.serve import service_command
from callboard.errors import CallboardError, InvalidSetting, Unavailable
from callboard.settings import Settings, child_environment, load

if TYPE_CHECKING:
    from callboard.storage.embedded import EmbeddedServer

SERVICES = ("api", "worker", "scheduler")

_API_GRACE_SECONDS = 10.0
_SCHEDULER_GRACE_SECONDS = 10.0
#: Beyond a worker's own drain: the time it takes to give back what has not ended.
_DRAIN_MARGIN_SECONDS = 5.0
#: A reload does not wait for a long task: it goes back to its queue and runs with the new code.
_RELOAD_GRACE_SECONDS = 5.0
_READY_POLL_SECONDS = 0.1
_STILL_WAITING_SECONDS = 10.0
_SERVER_POLL_SECONDS = 0.5


class ServiceFailed(Unavailable):
    """A service ended while it was starting; what it said has been printed.

    exit_code: its own, negative for a signal; 2 says that what it was told cannot work.
    """

    code = "service-failed"

    def __init__(self, name: str, exit_code: int) -> None:
        super().__init__(f"The {name} {how_it_ended(exit_code)} while it was starting.")
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run.

    modules: files or dotted names; with any, the shipped applications stay off unless `apps` names them.
    apps: applications; None: as CALLBOARD_APPS says.
    port: the API's wanted port; None: the setting.
    split: a worker for each queue. without: services not to start (SERVICES).
    slots: for each worker. environment: further variables for the children (None removes one).
    """

    modules: Sequence[str] = ()
    apps: Sequence[str] | None = None
    port: int | None = None
    split: bool = False
    reload: bool = False
    without: Collection[str] = ()
    slots: int | None = None
    environment: Mapping[str, str | None] = field(default_factory=dict)


class Supervisor:
    """Runs a Plan. `start`, then `wait` or whatever you like, then `stop`; or as a context manager.

    output: takes the lines of the services and of the supervisor, by default standard error.
    Methods are for one thread, except `ask_to_stop` and `hurry`, which signal handlers call.
    """

    def __init__(self, plan: Plan | None = None, *, output: TextIO | None = None) -> None:
        self.plan = plan or Plan()
        self.settings: Settings = load(child_environment(self.plan.environment))
        self.url = ""
        self.inventory: Inventory | None = None
        self._output = output
        self._speech = threading.Lock()
        self._children: dict[str, Child] = {}
        self._server: EmbeddedServer | None = None
        self._guard: Guard | None = None
        self._asked = threading.Event()
        self._hurry = threading.Event()
        self._drained = threading.Event()
        self._threads: list[threading.Thread] = []
        self._ports: set[int] = set()

    @property
    def redis_url(self) -> str:
        """Where the children's Redis is. Holds a secret."""
        if self.settings.redis_url is not None:
            return self.settings.redis_url
        return self._server.url if self._server is not None else ""

    @property
    def workers(self) -> dict[str, int | None]:
        """Process ids of the workers by name (`worker`, or `worker:QUEUE`); None between two lives."""
        return {child.name: child.pid for child in self._workers()}

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [pid for pid in self.workers.values() if pid is not None]

    def start(self, timeout_seconds: float | None = None) -> bool:
        """Start everything; True once all are ready, False when it was asked to stop meanwhile.

        Raises PreflightFailed and MissingExtra before anything runs; ServiceFailed, EmbeddedServerFailed,
        and Unavailable after `timeout_seconds`, with everything stopped again.
        """
        for service in self._wanted():
            service_command(service)  # a missing extra is told before anything runs
        if self.plan.modules or self.settings.modules or self.plan.split or self.plan.reload:
            try:
                self.check_modules()
            except PreflightFailed:
                if self._asked.is_set():
                    return False
                raise
        try:
            self._guard = Guard()
            self._start_server()
            self._start_children()
            return self._await_ready(timeout_seconds)
        except BaseException:
            self._hurry.set()
            self.stop()
            raise

    def check_modules(self) -> None:
        """Look at the modules as they are now. Raises PreflightFailed."""
        preflight = Preflight(self._environment({}))
        import_module("callboard.storage.embedded")  # slow, and needed next: it fills the wait
        self.inventory = preflight.result(self._asked)

    def wait(self) -> None:
        """Block until `ask_to_stop`."""
        while not self._asked.wait(60):
            pass

    def ask_to_stop(self) -> None:
        """Make `start` and `wait` return; `stop` does the rest."""
        self._asked.set()

    def hurry(self) -> None:
        """Shorten every grace to a last word."""
        self._hurry.set()

    def restart_workers(self) -> None:
        """Start every worker anew with the code of now. The API and the scheduler hold none of it."""
        for child in self._workers():
            if not self._asked.is_set():
                child.renew(_RELOAD_GRACE_SECONDS)

    def stop(self) -> None:
        """Stop the API, the workers (they drain), the scheduler, and at last the server. Idempotent."""
        self._asked.set()
        drain = self.settings.worker_drain_seconds + _DRAIN_MARGIN_SECONDS
        self._stop_children(
            [self._children[name] for name in ("api",) if name in self._children], _API_GRACE_SECONDS
        )
        self._stop_children(self._workers(), drain)
        self._stop_children(self._children.values(), _SCHEDULER_GRACE_SECONDS)
        self._children.clear()
        self._drained.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        if self._server is not None:
            pid = self._server.pid
            self._server.stop()
            if pid is not None and self._guard is not None:
                self._guard.forget(pid)
            self._server = None
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def say(self, name: str, line: str) -> None:
        """Write a line with a name in front."""
        output = self._output or sys.stderr
        with self._speech:
            try:
                output.write(f"{name:<9} | {line}\n")
                output.flush()
            except (OSError, ValueError):
                pass  # nobody reads any more; the work goes on

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wanted(self) -> list[str]:
        return [service for service in SERVICES if service not in self.plan.without]

    def _workers(self) -> list[Child]:
        return [child for name, child in self._children.items() if name.startswith("worker")]

    def _start_server(self) -> None:
        if self.settings.redis_url is not None:
            self.say("callboard", "uses the Redis that CALLBOARD_REDIS_URL names")
            return
        from callboard.storage.embedded import EmbeddedServer

        always = self.settings.durability == "synced"
        server = EmbeddedServer(self.settings.data_dir, appendfsync="always" if always else "everysec")
        server.start()
        self._server = server
        assert self._guard is not None
        assert server.pid is not None
        self._guard.watch(server.pid, "server")
        self.say("callboard", f"keeps its data in {server.data_dir}")
        self._run_thread("watch-server", self._watch_server, server, server.pid)

    def _watch_server(self, server: EmbeddedServer, pid: int) -> None:
        assert self._guard is not None
        while not self._drained.wait(_SERVER_POLL_SECONDS):
            if server.alive:
                continue
            self._guard.forget(pid)
            self.say("callboard", "the embedded server has died; starting it again")
            try:
                server.start()
            except CallboardError as error:
                self.say("callboard", f"{error} Trying again.")
                continue
            assert server.pid is not None
            pid = server.pid
            self._guard.watch(pid, "server")

    def _start_children(self) -> None:
        wanted = self._wanted()
        if "api" in wanted:
            self._add_api()
        if "worker" in wanted:
            for name, queue in self._worker_names():
                changes = {"CALLBOARD_WORKER_QUEUES": queue} if queue else {}
                if self.plan.slots is not None:
                    changes["CALLBOARD_WORKER_SLOTS"] = str(self.plan.slots)
                self._add(name, "worker", changes)
        if "scheduler" in wanted:
            self._add("scheduler", "scheduler", {})
        for child in self._children.values():
            child.start()
        if self.plan.reload:
            from callboard.cli.reloader import watch_code

            assert self.inventory is not None
            self._run_thread("reload", watch_code, self, self.inventory.folders, self._asked)

    def _worker_names(self) -> list[tuple[str, str]]:
        if not self.plan.split:
            return [("worker", "")]
        assert self.inventory is not None
        queues = self.settings.worker_queues or self.inventory.queues or (PLATFORM_QUEUE,)
        return [(f"worker:{queue}", queue) for queue in queues]

    def _add_api(self) -> None:
        host = self.settings.api_host
        wanted = self.settings.api_port if self.plan.port is None else self.plan.port
        port = free_port(host, wanted)
        self._ports.add(port)
        self.url = f"http://{_reachable(host)}:{port}"
        if wanted and port != wanted:
            self.say("callboard", f"port {wanted} is taken; the API takes {port}")
        self.say("callboard", f"the API is on {self.url}")
        self._add("api", "api", {"CALLBOARD_API_PORT": str(port)}, probe=(_reachable(host), port, "/readyz"))

    def _add(
        self, name: str, service: str, changes: Mapping[str, str], probe: tuple[str, int, str] | None = None
    ) -> None:
        host = self.settings.ops_host
        port = free_port(host, self.settings.ops_port, self._ports)
        self._ports.add(port)
        self.say("callboard", f"{name}: probes and metrics on http://{_reachable(host)}:{port}/metrics")
        environment = {**changes, "CALLBOARD_OPS_PORT": str(port)}
        assert self._guard is not None
        self._children[name] = Child(
            name,
            service_command(service),
            lambda: self._environment(environment),
            say=self.say,
            watcher=self._guard,
            probe=probe or (_reachable(host), port, "/readyz"),
        )

    def _environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        """A child's: ours, the plan's, and what belongs to this child."""
        overrides: dict[str, str | None] = {**self.plan.environment, "PYTHONUNBUFFERED": "1"}
        if self.redis_url:
            # A password in a file would contradict the value.
            overrides |= {"CALLBOARD_REDIS_URL": self.redis_url, "CALLBOARD_REDIS_URL_FILE": None}
        if self.plan.modules:
            overrides["CALLBOARD_MODULES"] = ",".join(map(_module, self.plan.modules))
            overrides["CALLBOARD_APPS"] = "none"
        if self.plan.apps is not None:
            overrides["CALLBOARD_APPS"] = ",".join(self.plan.apps) or "none"
        return child_environment({**overrides, **changes})

    def _await_ready(self, timeout_seconds: float | None) -> bool:
        began = clock.monotonic()
        told = began
        waiting = dict(self._children)
        while waiting and not self._asked.is_set():
            for name, child in list(waiting.items()):
                if child.deaths:
                    raise ServiceFailed(name, child.last_code or 0)
                if child.ready():
                    del waiting[name]
            now = clock.monotonic()
            if timeout_seconds is not None and now - began > timeout_seconds and waiting:
                raise Unavailable(f"Not ready within {timeout_seconds:g} s: {', '.join(waiting)}.")
            if now - told >= _STILL_WAITING_SECONDS and waiting:
                self.say("callboard", f"still waiting for: {', '.join(waiting)}")
                told = now
            if waiting:
                self._asked.wait(_READY_POLL_SECONDS)
        return not self._asked.is_set()

    def _stop_children(self, children: Iterable[Child], grace_seconds: float) -> None:
        """Stop several at once, for a drain takes as long as its longest task."""
        threads = [
            threading.Thread(target=child.stop, args=(grace_seconds, self._hurry), name=f"stop-{child.name}")
            for child in children
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run_thread(self, name: str, body: object, *args: object) -> None:
        assert callable(body)
        thread = threading.Thread(target=body, args=args, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)


def _reachable(host: str) -> str:
    """An address of this machine to speak to what listens on `host`."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    return "[::1]" if host == "::" else f"[{host}]" if ":" in host else host


def _module(name: str) -> str:
    if any(character.isspace() or character == "," for character in name):
        raise InvalidSetting(
            f"The module {name!r} has a blank or a comma in its name, which CALLBOARD_MODULES cannot hold; "
            "start in its folder, or rename it."
        )
    return name
