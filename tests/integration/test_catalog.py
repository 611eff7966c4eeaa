"""Publishing and reading the catalog, on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from callboard.catalog.contract import Contract, contract_of
from callboard.catalog.published import ABANDONED_MS, RETENTION_MS, publish, read, refresh
from callboard.catalog.queue import Queue, isolated_queues
from callboard.errors import StoreFull, UnknownQueue, UnknownTask
from callboard.storage.connection import Connection
from callboard.storage.operation import Command


@pytest.fixture
def connection(redis_url: str, namespace: str) -> Iterator[Connection]:
    connection = Connection(redis_url, namespace=namespace)
    with isolated_queues():
        yield connection
    connection.run(drop(connection.keys.catalog))
    connection.close()


def drop(key: str) -> Any:
    yield Command("DEL", key)


def parse_v1() -> Contract:
    def parse(url: str) -> None:
        """Parse a page."""

    return contract_of(parse, name="knowledge.parse", queue="parsing", version="1")


def parse_v2() -> Contract:
    def parse(url: str, depth: int = 1) -> None: ...

    return contract_of(parse, name="knowledge.parse", queue="parsing", retries=5, tags=["web"], version="2")


def age(connection: Connection, name: str, ms: int) -> None:
    """Make an entry look as if it had last been touched `ms` ago."""
    raw = connection.client.hget(connection.keys.catalog, name)
    assert isinstance(raw, bytes)
    published, seen, rest = raw.split(b" ", 2)
    older = b"%d %d %s" % (int(published) - ms, int(seen) - ms, rest)
    connection.client.hset(connection.keys.catalog, name, older)


def test_what_a_worker_publishes_others_read(connection: Connection) -> None:
    Queue("parsing", slots=2, wait_objective=60, retention=timedelta(days=1))
    connection.run(publish(connection.keys, [parse_v2()], ["parsing", "plain"], "host-1"))
    catalog = connection.run(read(connection.keys))
    found = catalog.task("knowledge.parse")
    assert found.terms == parse_v2().terms()
    assert found.schema == parse_v2().schema
    assert (found.queue, found.version, found.worker, found.is_async) == ("parsing", "2", "host-1", False)
    assert found.published_at == found.seen_at > 1_700_000_000_000
    assert catalog.queues["parsing"].wait_objective_ms == 60_000
    assert catalog.queues["parsing"].retention_ms == 86_400_000
    assert catalog.queues["plain"].slots is None
    assert catalog.queue_names() == {"parsing", "plain"}


def test_the_item_on_the_wire(connection: Connection) -> None:
    connection.run(publish(connection.keys, [parse_v1()], [], "host-1"))
    item = connection.run(read(connection.keys)).task("knowledge.parse").to_json()
    assert item["name"] == "knowledge.parse"
    assert item["description"] == "Parse a page."
    assert (item["priority"], item["retries"], item["max_attempts"]) == (5, 3, 4)
    assert item["limits"]["hard_limit_ms"] == 600_000
    assert item["published_by"] == "host-1"
    assert item["published_at"].endswith("Z")


def test_an_unknown_name_gives_the_nearest(connection: Connection) -> None:
    connection.run(publish(connection.keys, [parse_v1()], ["parsing"], "w"))
    catalog = connection.run(read(connection.keys))
    with pytest.raises(UnknownTask, match=r"Did you mean 'knowledge\.parse'"):
        catalog.task("knowlege.parse")
    with pytest.raises(UnknownQueue, match="Did you mean 'parsing'"):
        catalog.check_queue("parsin")
    assert catalog.check_queue("reports", others=["reports"]) == "reports"


def test_the_newest_wins_and_living_old_code_does_not_take_it_back(connection: Connection) -> None:
    keys = connection.keys
    connection.run(publish(keys, [parse_v1()], ["parsing"], "old"))
    connection.run(publish(keys, [parse_v2()], ["parsing"], "new"))
    connection.run(refresh(keys, [parse_v1()], ["parsing"], "old"))
    assert connection.run(read(keys)).task("knowledge.parse").version == "2"
    connection.run(publish(keys, [parse_v1()], ["parsing"], "rolled-back"))
    assert connection.run(read(keys)).task("knowledge.parse").worker == "rolled-back"


def test_when_the_newest_has_no_worker_left_the_living_code_takes_over(connection: Connection) -> None:
    keys = connection.keys
    connection.run(publish(keys, [parse_v2()], [], "gone"))
    age(connection, "knowledge.parse", ABANDONED_MS + 1000)
    connection.run(refresh(keys, [parse_v1()], [], "living"))
    found = connection.run(read(keys)).task("knowledge.parse")
    assert (found.version, found.worker) == ("1", "living")


def test_refreshing_keeps_an_entry_alive_and_its_first_publishing(connection: Connection) -> None:
    keys = connection.keys
    connection.run(publish(keys, [parse_v1()], [], "a"))
    age(connection, "knowledge.parse", 10 * ABANDONED_MS)
    connection.run(refresh(keys, [parse_v1()], [], "b"))
    found = connection.run(read(keys)).task("knowledge.parse")
    assert found.seen_at - found.published_at >= 10 * ABANDONED_MS
    assert found.worker == "a"


def test_refreshing_brings_back_what_was_lost(connection: Connection) -> None:
    keys = connection.keys
    connection.run(publish(keys, [parse_v1()], ["parsing"], "a"))
    connection.run(drop(keys.catalog))
    connection.run(refresh(keys, [parse_v1()], ["parsing"], "a"))
    catalog = connection.run(read(keys))
    assert (set(catalog.tasks), set(catalog.queues)) == ({"knowledge.parse"}, {"parsing"})


def test_entries_outlive_their_workers_by_thirty_days(connection: Connection) -> None:
    keys = connection.keys
    other = contract_of(parse_v1, name="other")
    connection.run(publish(keys, [parse_v1()], ["parsing"], "gone"))
    age(connection, "knowledge.parse", RETENTION_MS - 60_000)
    connection.run(publish(keys, [other], [], "b"))
    assert set(connection.run(read(keys)).tasks) == {"knowledge.parse", "other"}
    age(connection, "knowledge.parse", 120_000)
    age(connection, "#parsing", RETENTION_MS + 1)
    connection.run(publish(keys, [other], [], "b"))
    catalog = connection.run(read(keys))
    assert (set(catalog.tasks), set(catalog.queues)) == ({"other"}, set())


def test_more_entries_than_one_call_takes(connection: Connection) -> None:
    contracts = [contract_of(parse_v1, name=f"task.{number}") for number in range(250)]
    connection.run(publish(connection.keys, contracts, [], "w"))
    connection.run(refresh(connection.keys, contracts, [], "w"))
    assert len(connection.run(read(connection.keys)).tasks) == 250


def test_an_entry_of_a_later_release_is_left_out(connection: Connection) -> None:
    keys = connection.keys
    connection.run(publish(keys, [parse_v1()], ["parsing"], "w"))
    connection.client.hset(keys.catalog, "strange", b"2 not what we know")
    connection.client.hset(keys.catalog, "newer", b'1 1 abc w {"queue": "q"}')
    connection.client.hset(keys.catalog, "#odd", b"1 1 abc w []")
    catalog = connection.run(read(keys))
    assert (set(catalog.tasks), set(catalog.queues)) == ({"knowledge.parse"}, {"parsing"})


def test_publishing_works_when_redis_is_full(start_server: Callable[..., Any], namespace: str) -> None:
    server = start_server(persistent=False)
    connection = Connection(server.url, namespace=namespace)
    assert isinstance(connection.client, redis.Redis)
    connection.client.config_set("maxmemory", "1")
    with pytest.raises(StoreFull):
        connection.run(fill(connection.keys.schema))
    connection.run(publish(connection.keys, [parse_v1()], ["parsing"], "w"))
    connection.run(refresh(connection.keys, [parse_v1()], ["parsing"], "w"))
    assert set(connection.run(read(connection.keys)).tasks) == {"knowledge.parse"}
    connection.close()


def fill(key: str) -> Any:
    yield Command("SET", key, "x")
