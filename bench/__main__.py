"""`python -m bench`: every measurement, one table. See bench/README.md."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import redis

from bench import (
    delayed,
    forms,
    pickup,
    post,
    record_size,
    roundtrip,
    sleepers,
    startup,
    versus,
)
from bench.line import Line, Stage, render
from callboard.storage.embedded import EmbeddedServer

MEASUREMENTS: dict[str, Callable[[Stage], list[Line]]] = {
    "roundtrip": roundtrip.measure,
    "versus": versus.measure,
    "pickup": pickup.measure,
    "delayed": delayed.measure,
    "forms": forms.measure,
    "post": post.measure,
    "sleepers": sleepers.measure,
    "record": record_size.measure,
    "startup": startup.measure,
}


def main() -> int:
    """0 when every target holds, 1 when one does not, 3 when a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS)
    )
    parser.add_argument(
        "--quick", action="store_true", help="small counts: shows that it works, proves nothing"
    )
    options = parser.parse_args()
    lines: list[Line] = []
    broken = False
    with (
        tempfile.TemporaryDirectory(prefix="callboard-bench-") as folder,
        # Nothing on disk: the disk would be measured, and its cost is the same for all contenders.
        EmbeddedServer(Path(folder) / "redis", persistent=False) as server,
    ):
        stage = Stage(server, Path(folder), options.quick)
        machine = _machine(server)
        chosen = options.only or list(MEASUREMENTS)
        for name in ["roundtrip", *(name for name in chosen if name != "roundtrip")]:
            started, load = time.monotonic(), os.getloadavg()[0]
            try:
                found = MEASUREMENTS[name](stage)
                load_now = f"{load:.1f}–{os.getloadavg()[0]:.1f}"
                lines += [replace(line, load=load_now) for line in found]
            except Exception as error:
                broken = True
                lines.append(Line(name, "failed", "", False, f"{type(error).__name__}: {error}"[:200]))
                sys.excepthook(*sys.exc_info())
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(machine)
    if options.quick:
        print("QUICK: small counts; these figures prove nothing.")
    print()
    print(render(lines))
    if broken:
        return 3
    return 0 if all(line.holds is not False for line in lines) else 1


def _machine(server: EmbeddedServer) -> str:
    with redis.Redis.from_url(server.url) as client:
        told = client.info("server")
    name = "Valkey" if "valkey_version" in told else "Redis"
    version = told.get("valkey_version", told["redis_version"])
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores ({_processor()}); "
        f"{platform.system()} {platform.release().split('-')[0]}; Python {platform.python_version()}; "
        f"{name} {version} without persistence"
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
