"""Whether a Redis may be used: new enough, evicting nothing, and with data that this release understands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from callboard.errors import CallboardError, StoreUnfit
from callboard.storage.faults import NEEDED
from callboard.storage.keys import Keys
from callboard.storage.operation import Everywhere, Operation, ScriptCall
from callboard.storage.scripts import script

#: The oldest Redis, by `redis_version`; Valkey 7.2 and later report 7.2.4 there.
OLDEST = (7, 0)
#: The form in which this release writes records and keys, and the oldest release's that can read it. A new
#: form raises WRITES at once and OLDEST_READER one release later, so that both releases run side by side.
WRITES = 1
OLDEST_READER = 1

_SCHEMA = script("callboard.storage", "schema")


def check(keys: Keys) -> Operation[list[str]]:
    """Check every primary and the store's schema, and write down ours. Returns warnings for the log.

    Raises:
        StoreUnfit: too old, evicting, or written by a release too new for this one.
        StoreUnavailable: it does not answer.
    """
    warnings: list[str] = []
    servers = yield Everywhere("INFO", "server")
    memory = yield Everywhere("INFO", "memory")
    for node, info in servers.items():
        _check_version(_where(node), _answered(info))
        _check_policy(_where(node), _answered(memory.get(node, {})), warnings)
    oldest_reader = yield ScriptCall(_SCHEMA, keys.schema, (WRITES, OLDEST_READER))
    if oldest_reader > WRITES:
        raise StoreUnfit(
            f"The data in this Redis (namespace {keys.namespace!r}) has form {oldest_reader}, and this "
            f"release reads up to {WRITES}. Start a newer release, or use another namespace."
        )
    return warnings


def _check_version(where: str, info: Mapping[str, Any]) -> None:
    told = str(info.get("redis_version", ""))
    numbers = re.match(r"(\d+)\.(\d+)", told)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise StoreUnfit(f"{where} has version {told or 'unknown'}. {NEEDED}.")


def _check_policy(where: str, info: Mapping[str, Any], warnings: list[str]) -> None:
    policy = info.get("maxmemory_policy")
    if policy is None:
        warnings.append(
            f"{where} does not tell its maxmemory-policy. It must be noeviction, or tasks get lost when its "
            "memory is full."
        )
    elif policy != "noeviction":
        raise StoreUnfit(
            f"{where} has maxmemory-policy {policy}: when its memory is full it would silently delete tasks. "
            "Set it: CONFIG SET maxmemory-policy noeviction (and in its configuration file)."
        )


def _where(node: str) -> str:
    return f"Redis {node}" if node else "Redis"


def _answered(info: Any) -> Mapping[str, Any]:
    if isinstance(info, CallboardError):
        raise info
    found: Mapping[str, Any] = info
    return found
