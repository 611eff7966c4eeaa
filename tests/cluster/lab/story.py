"""What happened, second by second: demand, busy slots, pods."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import httpx

from tests.cluster.agent.api import Away, Refused
from tests.cluster.lab.release import Release

_PERIOD_SECONDS = 1.0


@dataclass(frozen=True)
class Moment:
    """at: seconds since the story's begin. demand, busy: slots; wanted, ready: pods; None: nobody said."""

    at: float
    demand: float | None
    busy: float | None
    wanted: int | None
    ready: int | None


class Story:
    """Looks once a second, from `begin()` to `end()`, at one queue and the Deployment that serves it."""

    def __init__(self, release: Release, queue: str, deployment: str) -> None:
        self._release, self._queue, self._deployment = release, queue, deployment
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.moments: list[Moment] = []
        self.chapters: list[tuple[float, str]] = []

    def begin(self) -> None:
        """Look from now on."""
        self._began = time.monotonic()
        self._thread.start()

    def chapter(self, title: str) -> float:
        """Something else begins now; when, in seconds since the begin."""
        at = time.monotonic() - self._began
        self.chapters.append((at, title))
        return at

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def changes(self, since: float) -> list[int]:
        """How many pods were wanted since then, each time that it changed."""
        wanted = [m.wanted for m in self.moments if m.at >= since and m.wanted is not None]
        return [now for before, now in pairwise(wanted) if now != before]

    def save(self, path: Path) -> None:
        """As JSON."""
        content = {"chapters": self.chapters, "moments": [asdict(moment) for moment in self.moments]}
        path.write_text(json.dumps(content), encoding="utf-8")

    def _look(self) -> None:
        where = f'namespace="{self._release.namespace}"'
        with httpx.Client(base_url=self._release.cluster.monitoring.url, trust_env=False) as prometheus:
            while not self._over.wait(_PERIOD_SECONDS):
                at = round(time.monotonic() - self._began, 2)
                demand = f'max(callboard_queue_demand_slots{{{where},queue="{self._queue}"}})'
                busy = f'sum(callboard_slots{{{where},queue="{self._queue}",state="busy"}})'
                self.moments.append(
                    Moment(at, _asked(prometheus, demand), _asked(prometheus, busy), *self._pods())
                )

    def _pods(self) -> tuple[int, int] | tuple[None, None]:
        try:
            return self._release.replicas(self._deployment)
        except (Away, Refused):
            return None, None


def _asked(prometheus: httpx.Client, query: str) -> float | None:
    try:
        result = prometheus.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
    except (httpx.HTTPError, ValueError, KeyError):
        return None
    return float(result[0]["value"][1]) if result else None
