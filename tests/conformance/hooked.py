"""A middleware out of single hooks."""

from __future__ import annotations

from collections.abc import Callable

from dramatiq import Middleware

from callboard.broker.broker import CallboardBroker


def hooked(broker: CallboardBroker, **hooks: Callable[..., None]) -> None:
    """Add a middleware with these hooks, `(broker, message, …)`."""
    broker.add_middleware(
        type("Hooked", (Middleware,), {name: staticmethod(h) for name, h in hooks.items()})()
    )
