"""Lines: connections kept out of the pool, on a real server that drops, refuses and is interrupted."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from callboard import clock, configure
from callboard.storage import default
from callboard.storage.address import Address
from callboard.storage.connection import Connection
from callboard.storage.guarded import pools
from callboard.storage.lines import Lines
from callboard.storage.operation import Command
from callboard.submit import Submission, submit
from tests.support.forking import forked
from tests.support.waiting import wait_until


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = Address.parse(redis_url).client()
    assert isinstance(made, redis.Redis)
    yield made
    made.close()


@pytest.fixture
def lines(client: redis.Redis) -> Iterator[Lines]:
    made = Lines(client)
    yield made
    made.hang_up()


def _id(lines: Lines) -> int:
    return int(lines.call(("CLIENT", "ID")))


def test_one_connection_serves_call_after_call(lines: Lines) -> None:
    assert len({_id(lines) for _ in range(10)}) == 1


def test_a_server_that_does_not_answer_is_given_up_in_time(redis_url: str) -> None:
    made = Address.parse(redis_url).client(socket_timeout=0.25, resends=0)
    assert isinstance(made, redis.Redis)
    lines = Lines(made)
    for _ in range(2):  # the second on a connection made anew
        assert _id(lines)
        began = clock.monotonic()
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            lines.call(("BLPOP", "nothing", 30))
        assert 0.2 < clock.monotonic() - began < 10
        assert not lines._free
    lines.hang_up()
    made.close()


@pytest.mark.parametrize("most", [1, 2, 3])
def test_lines_that_nobody_uses_leave_room_in_a_small_pool(redis_url: str, most: int) -> None:
    """A worker's threads once parked both connections of a pool of two, and no other command got through."""
    made = Address.parse(f"{redis_url}?max_connections={most}").client()
    assert isinstance(made, redis.Redis)
    lines = Lines(made)
    taken = [lines._take() for _ in range(most)]
    with pytest.raises(redis.ConnectionError):
        made.ping()
    for line in taken:
        lines._put_back(line)
    assert made.ping()
    assert lines.call(("PING",)) == b"PONG"
    lines.hang_up()
    made.close()


def test_a_refusal_is_raised_and_leaves_the_line_usable(lines: Lines) -> None:
    before = _id(lines)
    with pytest.raises(redis.ResponseError):
        lines.call(("EVALSHA", "0" * 40, 0))
    assert _id(lines) == before


def test_a_connection_that_the_server_dropped_is_made_anew(lines: Lines, client: redis.Redis) -> None:
    before = _id(lines)
    client.client_kill_filter(_id=str(before))
    after = _id(lines)
    assert after != before
    assert _id(lines) == after


def test_an_exception_in_mid_reply_does_not_hand_the_reply_to_the_next_call(lines: Lines) -> None:
    # The limit of a thread slot comes as an exception thrown into its thread.
    started = threading.Event()
    ended: list[BaseException | None] = []

    def call() -> None:
        lines.call(("PING",))  # connected before the exception comes
        started.set()
        try:
            lines.call(("BLPOP", "nothing:here", 1.5))
            lines.call(("PING",))
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    started.wait(5)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt)
    )
    thread.join(20)
    assert isinstance(ended[0], KeyboardInterrupt)
    assert lines.call(("ECHO", "mine")) == b"mine"


def test_many_callers_get_their_own_replies_and_the_pool_is_not_used_up(
    lines: Lines, client: redis.Redis
) -> None:
    with ThreadPoolExecutor(40) as pool:
        words = [f"word{number}" for number in range(2000)]
        assert list(pool.map(lambda word: lines.call(("ECHO", word)), words)) == [w.encode() for w in words]
    taken = client.connection_pool._in_use_connections
    assert len(taken) <= 8


@pytest.mark.parametrize("held", ["_lock", "_fork_lock"])
def test_a_forked_child_does_not_wait_for_a_thread_of_its_parents(redis_url: str, held: str) -> None:
    """Given a thread of the parent that is inside the pool at the moment of the fork
    When the child, which does not have that thread, calls
    I expect it to be answered.
    """
    connection = Connection(redis_url)
    assert connection.execute(Command("PING"))
    [pool] = pools(connection.client)
    answered = forked(lambda: connection.execute(Command("PING")), getattr(pool, held))
    connection.close()
    assert answered == 0


def test_a_forked_child_does_not_speak_on_its_parents_line(lines: Lines) -> None:
    before = _id(lines)
    assert forked(lambda: _id(lines) != before) == 0
    assert _id(lines) == before


def test_hanging_up_gives_every_connection_back(lines: Lines, client: redis.Redis) -> None:
    before = _id(lines)
    lines.hang_up()
    wait_until(lambda: before not in {int(row["id"]) for row in client.client_list()})
    assert _id(lines) != before


def test_a_stream_answers_in_order_and_asks_for_the_next_before_it_reads(lines: Lines) -> None:
    asked: list[int] = []
    read: list[bytes] = []

    def commands() -> Iterator[tuple[str, str]]:
        for number in range(5):
            asked.append(number)
            yield "ECHO", str(number)

    for reply in lines.stream(commands()):
        read.append(reply)
        assert len(asked) == min(5, len(read) + 1)
    assert read == [b"0", b"1", b"2", b"3", b"4"]
    assert len({_id(lines), _id(lines)}) == 1


def test_a_stream_that_fails_in_the_middle_leaves_no_reply_for_others(lines: Lines) -> None:
    commands = [("ECHO", "a"), ("EVALSHA", "0" * 40, 0), ("ECHO", "b"), ("ECHO", "c")]
    replies: list[bytes] = []
    with pytest.raises(redis.ResponseError):
        replies.extend(lines.stream(iter(commands)))
    assert lines.call(("ECHO", "mine")) == b"mine"


def test_a_batch_of_many_chunks_is_stored_once_though_a_reply_and_the_script_are_lost(
    redis_url: str, namespace: str
) -> None:
    connection = Connection(redis_url, namespace=namespace)
    submissions = [Submission(name="a.task", queue="q", payload={"number": n}) for n in range(1000)]
    connection.client.script_flush()
    killed: list[int] = []
    lines = connection._lines
    assert lines is not None
    read = lines.stream

    def broken(commands: Iterator[Sequence[Any]]) -> Iterator[Any]:
        for number, reply in enumerate(read(commands)):
            if number == 3:
                killed.append(number)
                raise redis.ConnectionError("cut off")
            yield reply

    first = connection.run(submit(connection.keys, submissions[:500]))  # the script has to be loaded again
    lines.stream = broken  # type: ignore[method-assign]
    second = connection.run(submit(connection.keys, submissions[500:]))
    assert killed == [3]
    stored = connection.client.zcard(connection.keys.queue("q").prefix + "all")
    assert stored == len({reply.id for reply in first + second}) == 1000
    assert all(reply.problem is None for reply in first + second)
    connection.close()


def test_a_child_that_is_forked_while_the_connection_is_made_makes_its_own(
    redis_url: str, namespace: str
) -> None:
    configure(redis_url, namespace=namespace)
    answered = forked(lambda: default.connection().execute(Command("PING")), default._lock)
    default.connection().close()
    assert answered == 0
