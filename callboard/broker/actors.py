"""Dramatiq's actors as contracts: for the catalog, and for the worker that runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from math import inf
from typing import Any

from dramatiq import Actor, Middleware
from dramatiq.asyncio import async_to_sync
from dramatiq.middleware import TimeLimit

from callboard.broker.message import priority_of
from callboard.catalog.contract import Contract, ContractOptions, contract_of

#: What a Dramatiq time limit leaves a body to stop by itself, before it is killed.
_HARD_AFTER_MS = 60_000
_WRAPPER = async_to_sync(asyncio.sleep).__code__


def contract_of_actor(
    actor: Actor[Any, Any], middleware: Iterable[Middleware], max_attempts: int | None
) -> Contract:
    """What an actor comes to here: its queue, its limits, its attempts (None: endless).

    Raises InvalidDeclaration for an impossible queue.
    """
    limiter = next((m for m in middleware if isinstance(m, TimeLimit)), None)
    options: ContractOptions = {
        "queue": actor.queue_name,
        "priority": priority_of(actor.priority),
        "retries": None if max_attempts is None else max_attempts - 1,
        "soft_limit": None,
    }
    time_limit = actor.options.get("time_limit", limiter.time_limit if limiter else None)
    if time_limit is not None:
        soft, hard = limits_of(time_limit)
        options["soft_limit"] = None if soft is None else timedelta(milliseconds=soft)
        options["hard_limit"] = None if hard is None else timedelta(milliseconds=hard)
    return contract_of(own_function(actor), name=actor.actor_name, lenient=True, **options)


def limits_of(time_limit: float) -> tuple[int | None, int | None]:
    """Soft and hard limit in ms that a Dramatiq time limit in ms comes to; infinity is none at all."""
    if time_limit == inf:
        return None, None
    return int(time_limit), int(time_limit) + _HARD_AFTER_MS


def wraps_coroutine(actor: Actor[Any, Any]) -> bool:
    """Whether an `async def` was decorated: Dramatiq puts a plain function around it."""
    return getattr(actor.fn, "__code__", None) is _WRAPPER


def own_function(actor: Actor[Any, Any]) -> Callable[..., Any]:
    """What was decorated."""
    function: Callable[..., Any] = actor.fn
    return function.__wrapped__ if wraps_coroutine(actor) else function  # type: ignore[attr-defined]
