"""Claims that a network held back, and delivers when nobody waits for them any more."""

from __future__ import annotations

import pytest

from callboard.broker import turn
from callboard.storage.connection import Connection
from tests.support import tasks


@pytest.fixture
def connection(redis_url: str, namespace: str):
    made = Connection(redis_url, namespace=namespace)
    yield made
    made.close()


def claim(connection: Connection, nonce: str, worker: str = "w1") -> list[str]:
    operation = turn.turn(connection.keys, "q", worker, want=1, nonce=nonce)
    return [claimed.local for claimed in connection.run(operation).claims]


def test_a_numbered_claim_takes_nothing_after_its_successor(connection: Connection) -> None:
    """Given claims 9 and 10 of a worker, by number and not by spelling
    When one that was given up comes late
    I expect it to take nothing, and the newest one sent again to get the same task.
    """
    tasks.accept(connection, "q", 4)
    assert len(claim(connection, "9:a")) == 1
    [newest] = claim(connection, "10:b")
    assert claim(connection, "8:c") == []
    assert claim(connection, "9:a") == []
    assert claim(connection, "10:b") == [newest]
    assert len(claim(connection, "11:d")) == 1


def test_claims_of_others_and_claims_without_a_number_are_not_held_up(connection: Connection) -> None:
    tasks.accept(connection, "q", 4)
    assert len(claim(connection, "9:a")) == 1
    assert len(claim(connection, "1:b", worker="w2")) == 1
    assert len(claim(connection, "abcdef")) == 1
    assert len(claim(connection, "1:c")) == 1
