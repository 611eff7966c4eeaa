"""What the chart's images are on this machine: the project's own environment, and the laptop's Valkey.

Paths inside are those of the Dockerfile: /opt/callboard/venv, no shell's PATH, user 65532.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from callboard.storage.embedded import bundled_server
from tests.cluster.lab.tools import ROOT

#: A worker's image with tasks of a user's own, as `FROM callboard-worker` gives: tests/cluster/workload.py.
OWN_IMAGE = "example-worker"
_VENV = "/opt/callboard/venv"
_USER = 65532
# A repository below /tmp would be hidden by the pod's own /tmp, so it stands elsewhere inside.
_SOURCE = "/opt/callboard/source"
_PYTHONPATH = ":".join((_SOURCE, *(f"{_SOURCE}/services/{name}" for name in ("api", "scheduler", "worker"))))


def write_images(path: Path, ledger: Path) -> Path:
    """Write the file that the node agent reads. ledger: a folder that pods of `OWN_IMAGE` write to."""
    worker = _callboard("callboard_worker", tini=True)
    own = worker | {
        "environment": worker["environment"]
        | {
            "CALLBOARD_MODULES": "tests.cluster.workload",
            "CHAOS_LEDGER": "/ledger/bodies",
        },
        "mounts": [*worker["mounts"], [str(ledger), "/ledger", "rw"]],
    }
    images = {
        "callboard-api": _callboard("callboard_api"),
        "callboard-scheduler": _callboard("callboard_scheduler"),
        "callboard-worker": worker,
        OWN_IMAGE: own,
        "valkey/valkey": _valkey(),
    }
    path.write_text(json.dumps(images, indent=1), encoding="utf-8")
    return path


def _callboard(module: str, *, tini: bool = False) -> dict[str, Any]:
    # The environment finds this project in the repository, its Python lies wherever it was made from.
    python = str(Path(sys.base_prefix).resolve())
    mounts = [[str(ROOT), _SOURCE, "ro"], [sys.prefix, _VENV, "ro"]]
    if not python.startswith("/usr"):
        mounts.append([python, python, "ro"])
    init = [shutil.which("tini") or "", "-s", "--"] if tini and shutil.which("tini") else []
    return {
        "entrypoint": [*init, f"{_VENV}/bin/python", "-m", module],
        "user": _USER,
        "group": _USER,
        "folder": "/app",
        "environment": {
            "PATH": f"{_VENV}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            "PYTHONPATH": _PYTHONPATH,
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        "mounts": mounts,
    }


def _valkey() -> dict[str, Any]:
    server = bundled_server() or Path(shutil.which("redis-server") or "redis-server")
    client = shutil.which("redis-cli") or "redis-cli"
    return {
        "entrypoint": ["valkey-server"],
        "user": 999,
        "group": 999,
        "folder": "/data",
        "environment": {"PATH": "/opt/valkey/bin:/usr/bin:/bin"},
        "mounts": [
            [str(server), "/opt/valkey/bin/valkey-server", "ro"],
            [client, "/opt/valkey/bin/valkey-cli", "ro"],
        ],
    }
