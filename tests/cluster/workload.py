"""Tasks of a user's own, for the pods of the proofs: they sleep, and tell the ledger that they did."""

from __future__ import annotations

import time

from callboard import task
from tests.support.ledger import entered


@task(queue="naps")
def nap(seconds: float) -> float:
    """Sleep, in a process slot."""
    with entered():
        time.sleep(seconds)
    return seconds
