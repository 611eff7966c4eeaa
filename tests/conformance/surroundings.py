"""What Dramatiq's tests import from a module that its source distribution leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import dramatiq
import pika
import pytest

from tests.conformance import hosts

T = TypeVar("T")


def _as_it_is(test: T) -> T:
    return test


skip_on_pypy: Callable[[Any], Any] = _as_it_is
skip_on_windows: Callable[[Any], Any] = _as_it_is
#: Theirs is skipped in CI for its length; ours runs among the long ones.
skip_in_ci = pytest.mark.proof

#: For a broker that is made and never connects.
RABBITMQ_CREDENTIALS = pika.PlainCredentials("guest", "guest")


@contextmanager
def worker(broker: dramatiq.Broker, **options: Any) -> Iterator[Any]:
    """A started worker of the form that this test is run with; stopped at the end."""
    started = hosts.chosen(broker, **options)
    started.start()
    try:
        yield started
    finally:
        started.stop()
