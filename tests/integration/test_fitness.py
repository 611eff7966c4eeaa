"""Which Redis is refused at the start, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from callboard.errors import StoreUnavailable, StoreUnfit
from callboard.storage import fitness
from callboard.storage.connection import AsyncConnection, Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Everywhere, Request, ScriptCall
from tests.support.old_redis import old_redis

GOOD = {"redis_version": "7.0.15"}
KEEPING = {"maxmemory_policy": "noeviction"}


def drive(servers: Mapping[str, Any], memory: Mapping[str, Any], oldest_reader: int = 1) -> list[str]:
    """The check against nodes that answer so."""

    def reply(request: Request) -> Any:
        if isinstance(request, Everywhere):
            return servers if request.words[1] == "server" else memory
        assert isinstance(request, ScriptCall)
        return oldest_reader

    operation = fitness.check(Keys("cb"))
    answer: Any = None
    try:
        while True:
            answer = reply(operation.send(answer))
    except StopIteration as end:
        warnings: list[str] = end.value
        return warnings


def test_a_fit_server_gives_no_warning_and_knows_our_schema(redis_url: str, namespace: str) -> None:
    connection = Connection(redis_url, namespace=namespace)
    assert connection.run(fitness.check(connection.keys)) == []
    assert connection.run(fitness.check(connection.keys)) == []
    schema = connection.execute(Command("HGETALL", connection.keys.schema))
    assert schema == {b"writes": b"%d" % fitness.WRITES, b"oldest_reader": b"%d" % fitness.OLDEST_READER}
    connection.close()


async def test_the_same_check_runs_on_an_event_loop(redis_url: str, namespace: str) -> None:
    connection = AsyncConnection(redis_url, namespace=namespace)
    assert await connection.run(fitness.check(connection.keys)) == []
    await connection.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_an_evicting_server_is_refused_with_the_reason(
    policy: str, start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    connection = Connection(start_server(config={"maxmemory-policy": policy}).url, namespace=namespace)
    with pytest.raises(StoreUnfit, match=f"maxmemory-policy {policy}: .* delete tasks"):
        connection.run(fitness.check(connection.keys))
    assert connection.execute(Command("EXISTS", connection.keys.schema)) == 0, "nothing is written to it"
    connection.close()


@pytest.mark.parametrize(
    ("version", "fit"), [("6.2.14", False), ("7.0.0", True), ("7.2.4", True), ("10.0.1", True), ("", False)]
)
def test_versions(version: str, fit: bool) -> None:
    if fit:
        assert drive({"": {"redis_version": version}}, {"": KEEPING}) == []
    else:
        with pytest.raises(StoreUnfit, match=r"needs Redis 7\.0 or newer"):
            drive({"": {"redis_version": version}}, {"": KEEPING})


@pytest.mark.parametrize(
    ("version", "told"), [("6.2.14", "Redis has version 6.2.14"), ("5.0.14", "Redis is older than 6.0")]
)
async def test_an_old_server_is_refused_although_it_may_not_even_greet(version: str, told: str) -> None:
    with old_redis(version) as url:
        connection, on_loop = Connection(url), AsyncConnection(url)
        with pytest.raises(StoreUnfit, match=rf"{told}.*needs Redis 7\.0 or newer"):
            connection.run(fitness.check(connection.keys))
        with pytest.raises(StoreUnfit, match=rf"{told}.*needs Redis 7\.0 or newer"):
            await on_loop.run(fitness.check(on_loop.keys))
        connection.close()
        await on_loop.close()


def test_a_policy_that_is_hidden_is_a_warning() -> None:
    [warning] = drive({"": GOOD}, {"": {}})
    assert "noeviction" in warning


def test_every_node_of_a_cluster_is_asked() -> None:
    bad = {"maxmemory_policy": "allkeys-lfu"}
    with pytest.raises(StoreUnfit, match="Redis b:2 has maxmemory-policy allkeys-lfu"):
        drive({"a:1": GOOD, "b:2": GOOD}, {"a:1": KEEPING, "b:2": bad})
    with pytest.raises(StoreUnavailable):
        drive({"a:1": GOOD, "b:2": StoreUnavailable("away")}, {"a:1": KEEPING})


def test_data_of_a_newer_form_is_refused_and_left_alone(redis_url: str, namespace: str) -> None:
    connection = Connection(redis_url, namespace=namespace)
    newer = {"writes": fitness.WRITES + 2, "oldest_reader": fitness.WRITES + 1}
    for name, value in newer.items():
        connection.execute(Command("HSET", connection.keys.schema, name, value))
    with pytest.raises(StoreUnfit, match="Start a newer release"):
        connection.run(fitness.check(connection.keys))
    schema = connection.execute(Command("HGETALL", connection.keys.schema))
    assert {name.decode(): int(value) for name, value in schema.items()} == newer
    connection.close()


def test_data_that_a_newer_release_writes_for_us_too_is_accepted(redis_url: str, namespace: str) -> None:
    connection = Connection(redis_url, namespace=namespace)
    connection.execute(Command("HSET", connection.keys.schema, "writes", 99, "oldest_reader", 1))
    assert connection.run(fitness.check(connection.keys)) == []
    assert connection.execute(Command("HGET", connection.keys.schema, "writes")) == b"99"
    connection.close()


def test_a_full_server_can_be_started_on(start_server: Callable[..., EmbeddedServer], namespace: str) -> None:
    connection = Connection(start_server(config={"maxmemory": "1mb"}).url, namespace=namespace)
    assert connection.run(fitness.check(connection.keys)) == []
    connection.close()
