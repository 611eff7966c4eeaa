"""Where the time goes: `python -m bench.profiling submit|drain|redis [tasks]`.

`submit` and `drain` run Callboard under cProfile: the submitting thread; the worker's pump, slot threads and
the rest. It makes Python about twice as slow, so read the order, not the seconds. `redis` runs both without a
profiler and shows Redis's own commandstats.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from bench.contender import Callboard, drain
from callboard.storage.embedded import EmbeddedServer

LINES = 14
_profiles: dict[str, list[cProfile.Profile]] = {}


def _profiled(run: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    def wrapper(thread: threading.Thread) -> None:
        kind = "slots" if thread.name.startswith("slot-") else thread.name
        profile = cProfile.Profile()
        _profiles.setdefault(kind, []).append(profile)
        profile.enable()
        try:
            run(thread)
        finally:
            profile.disable()

    return wrapper


def _show(title: str, profiles: list[cProfile.Profile], tasks: int) -> None:
    stats = pstats.Stats(profiles[0])
    for profile in profiles[1:]:
        stats.add(profile)
    found: Any = stats
    rows = sorted(found.stats.items(), key=lambda item: -item[1][2])[:LINES]
    print(f"\n{title}: µs a task spent in the function itself, calls a task")
    for (path, line, name), (_, calls, own, _, _) in rows:
        place = name if path == "~" else f"{'/'.join(Path(path).parts[-2:])}:{line} {name}"
        print(f"{own / tasks * 1e6:8.1f}  {calls / tasks:6.2f}  {place}")


def submit(url: str, tasks: int) -> None:
    contender = Callboard(url)
    contender.submit(0)
    for title, call in (
        ("single submits", lambda: [contender.submit(number) for number in range(tasks)]),
        ("batch submits", lambda: contender.submit_batch(tasks)),
    ):
        profile = cProfile.Profile()
        profile.runcall(call)
        _show(title, [profile], tasks)


def worker(url: str, tasks: int) -> None:
    threading.Thread.run = _profiled(threading.Thread.run)  # type: ignore[assignment, method-assign]
    drain(Callboard(url), tasks)
    for kind in ("pump", "slots"):
        _show(f"drain, {kind}", _profiles[kind], tasks)


def commands(url: str, tasks: int) -> None:
    contender = Callboard(url)
    with redis.Redis.from_url(url) as client:
        for title, call in (
            ("single submits", lambda: [contender.submit(number) for number in range(tasks)]),
            ("batch submits and a drain", lambda: drain(contender, tasks)),
        ):
            client.config_resetstat()
            call()
            told: dict[str, Any] = client.info("commandstats")
            print(f"\n{title}: Redis's µs a task, calls a task (a script's commands count in it too)")
            rows = sorted(told.items(), key=lambda item: -item[1]["usec"])[:LINES]
            for name, row in rows:
                print(f"{row['usec'] / tasks:8.1f}  {row['calls'] / tasks:6.2f}  {name[8:]}")


def main() -> None:
    what = sys.argv[1] if len(sys.argv) > 1 else "submit"
    tasks = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    runs = {"submit": submit, "drain": worker, "redis": commands}
    if what not in runs:
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder), persistent=False) as server:
        runs[what](server.url, tasks)


if __name__ == "__main__":
    main()
