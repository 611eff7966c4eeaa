"""A Redis behind a socket in the file system, and what an address cannot ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from callboard.errors import InvalidSetting
from callboard.storage.address import Address
from callboard.storage.connection import AsyncConnection, Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.submit import Blank, Submission, SubmitLimits, submit

TASK = Submission(name="a.task", queue="q")


def test_every_door_works_over_a_socket(start_server: Callable[..., EmbeddedServer], namespace: str) -> None:
    url = start_server().socket_url
    if url is None:
        pytest.skip("the folder for temporary files has too long a name for a socket")
    connection = Connection(url, namespace=namespace)
    blank = Blank(connection, TASK, SubmitLimits())
    ids = {blank.accept(b"{}") for _ in range(2)}
    connection.client.client_kill_filter(_type="normal", skipme=True)
    ids.add(blank.accept(b"{}"))
    wake = connection.keys.queue("q").wake
    with connection.blocking(1) as client:
        assert client.blpop([wake], 1) == (wake.encode(), b"1")

    async def from_a_loop() -> str:
        other = AsyncConnection(url, namespace=namespace)
        try:
            [submitted] = await other.run(submit(other.keys, [TASK]))
            return submitted.id
        finally:
            await other.close()

    ids.add(asyncio.run(from_a_loop()))
    assert connection.client.zcard(connection.keys.queue("q").state("queued")) == len(ids) == 4
    connection.close()


@pytest.mark.parametrize("scheme", ["redis://127.0.0.1", "redis+sentinel://127.0.0.1/main", "unix:///a.sock"])
def test_texts_instead_of_bytes_are_refused(scheme: str) -> None:
    with pytest.raises(InvalidSetting, match="decode_responses"):
        Address.parse(f"{scheme}?decode_responses=True")


def test_many_that_come_first_are_refused_alike_when_memory_is_full(
    start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    server = start_server(config={"maxmemory": "40mb", "maxmemory-policy": "noeviction"})
    filler = Connection(server.url)
    for _ in range(34):
        filler.client.rpush("filler", b"x" * 1_000_000)

    async def all_at_once() -> list[bool]:
        connection = AsyncConnection(server.url, namespace=namespace)
        try:
            replies = await asyncio.gather(
                *(connection.run(submit(connection.keys, [TASK])) for _ in range(20))
            )
            return [reply.problem is None for [reply] in replies]
        finally:
            await connection.close()

    assert asyncio.run(all_at_once()) == [False] * 20
    filler.close()
