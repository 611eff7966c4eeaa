"""The demo itself: submit the pages, watch, kill the worker in the middle, watch on, judge."""

from __future__ import annotations

import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from callboard import clock
from callboard.cli.demo.platform import LEASE_SECONDS, Platform, interruptible, kill
from callboard.cli.demo.screen import Screen, make_console, make_screen, outcome_table
from callboard.cli.demo.site import Site, SitePage
from callboard.cli.demo.verdict import TERMINAL, Resource, Verdict, count, judge
from callboard.errors import CallboardError

_LOOK_SECONDS = 0.15
_DEADLINE_SECONDS = 50
_KILL_AT_PERCENT = 20
_KILL_AFTER_DONE = 3


def perform(*, port: int = 0, keep: bool = False, console: Console | None = None) -> int:
    """Run the demo and answer its exit code: 0 when every task ended as it should, else 1.

    port: the platform's, 0 for a free one. keep: stay until Ctrl-C, to look around.
    """
    console = console or make_console()
    try:
        with (
            interruptible(),
            tempfile.TemporaryDirectory(prefix="callboard-demo-", ignore_cleanup_errors=True) as folder,
            Site() as site,
        ):
            _introduce(console, site)
            with Platform(Path(folder), port) as platform:
                console.print(
                    f"The platform  {platform.url}, with a server, API, worker and scheduler of its own\n"
                )
                return _Performance(console, site, platform).run(keep)
    except KeyboardInterrupt:
        console.print("\nStopped. Nothing is left running.")
        return 130
    except CallboardError as error:
        console.print(f"[red]The demo failed.[/] {escape(str(error))}", soft_wrap=True)
        return 1


def _introduce(console: Console, site: Site) -> None:
    console.print(f"The site      {site.url}, {count(len(site.pages), 'page')}")
    for page in site.pages:
        if page.behaviour in ("slow", "busy", "missing", "endless"):
            console.print(f"              {page.path} {page.note}")


class _Performance:
    def __init__(self, console: Console, site: Site, platform: Platform) -> None:
        self._console = console
        self._platform = platform
        self._site = site
        self._pages: dict[str, SitePage] = {}
        self._seen: dict[str, Resource] = {}
        self._dead: set[str] = set()
        self._interrupted: frozenset[str] = frozenset()

    def run(self, keep: bool) -> int:
        started = clock.monotonic()
        ids = self._platform.submit([{"url": self._site.url + page.path} for page in self._site.pages])
        self._pages = dict(zip(ids, self._site.pages, strict=True))
        with make_screen(self._console, self._site.pages) as screen:
            while clock.monotonic() - started < _DEADLINE_SECONDS:
                self._look(screen)
                if self._all_ended():
                    break
                if not self._dead and self._in_the_middle():
                    self._kill_the_worker(screen)
                clock.sleep(_LOOK_SECONDS)
        return self._close(keep, clock.monotonic() - started)

    def _look(self, screen: Screen) -> None:
        self._seen = self._platform.tasks()
        for task_id, page in self._pages.items():
            task = self._seen.get(task_id)
            if task is not None:
                stranded = task["state"] == "running" and task.get("worker") in self._dead
                screen.update(page, task, stranded=stranded)

    def _all_ended(self) -> bool:
        return all(self._state(task_id) in TERMINAL for task_id in self._pages)

    def _state(self, task_id: str) -> str:
        return str(self._seen.get(task_id, {}).get("state", "unknown"))

    def _slow(self) -> Resource | None:
        """The slow page's task while it runs."""
        for task_id, page in self._pages.items():
            if page.behaviour == "slow" and self._state(task_id) == "running":
                return self._seen[task_id]
        return None

    def _in_the_middle(self) -> bool:
        slow = self._slow()
        done = sum(self._state(task_id) in TERMINAL for task_id in self._pages)
        percent = ((slow or {}).get("progress") or {}).get("percent") or 0
        return slow is not None and done >= _KILL_AFTER_DONE and percent >= _KILL_AT_PERCENT

    def _kill_the_worker(self, screen: Screen) -> None:
        slow = self._slow()
        worker = self._platform.workers().get(slow["worker"]) if slow is not None else None
        if worker is None or worker.pid is None:
            return
        if not kill(worker.pid):
            screen.say(f"[yellow]Process {worker.pid} did not die; trying again.[/]")
            return
        self._dead.add(worker.id)
        # Only now: what the worker finished before it died was not interrupted.
        self._look(screen)
        self._interrupted = frozenset(
            task_id
            for task_id in self._pages
            if self._state(task_id) == "running" and self._seen[task_id].get("worker") == worker.id
        )
        paths = ", ".join(self._pages[task_id].path for task_id in self._interrupted)
        screen.say(
            f"[bold red]Killed worker {worker.id} (process {worker.pid}) with SIGKILL[/] "
            f"while it ran {paths}. Its leases end in {LEASE_SECONDS} s; then its tasks run again."
        )

    def _close(self, keep: bool, took: float) -> int:
        findings = [judge(page, self._platform.task(task_id)) for task_id, page in self._pages.items()]
        verdict = Verdict(findings, len(self._dead), self._interrupted)
        self._console.print()
        self._console.print(outcome_table(findings))
        for complaint in verdict.complaints:
            self._console.print(f"[red]Not as it should be:[/] {complaint}", highlight=False)
        if not verdict.complaints:
            self._console.print(
                f"All {count(len(findings), 'task')} ended as they should, in {took:.0f} s; "
                f"{count(verdict.rerun, 'task')} that the dead worker held ran again."
            )
        self._console.print(f"[bold]{verdict.headline}[/]")
        if keep:
            self._console.print(f"API: {self._platform.url}  (Ctrl-C ends it)")
            _until_interrupted()
        else:
            self._console.print(
                f"API: {self._platform.url}  (gone with the demo; `callboard demo --keep` keeps it)"
            )
        return 1 if verdict.complaints else 0


def _until_interrupted() -> None:
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
