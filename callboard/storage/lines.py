"""Lines: connections kept out of redis-py's pool, for the calls that a worker and a submitter live from.

The pool asks each connection before each use whether it is still good, and counts it for telemetry on the
way out and back: half of a round trip's CPU time. A line is taken and put back by one list operation; whether
it is good is found by using it, and what fails is sent again as redis-py would.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import redis

#: The pool has a limit, and other commands need some of it too.
_MOST = 8


class Lines:
    """Connections of `client`'s pool that stay taken. Safe to share among threads, and with a fork."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._free: list[Any] = []

    def call(self, words: Sequence[Any]) -> Any:
        """The reply to one command that may be sent twice, undecoded.

        Raises what redis-py raises; the connection's own retries come first.
        """
        line = self._take()
        try:
            # Nearly every call ends here; the retries cost more than the call.
            line.send_packed_command(line.pack_command(*words), check_health=False)
            reply = line.read_response()
        except redis.ResponseError:
            self._put_back(line)
            raise
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            reply = self._again(line, words, error)
        except BaseException:
            # An exception thrown into this thread in mid-reply: the next caller would read the rest of it.
            self._drop(line)
            raise
        self._put_back(line)
        return reply

    def _take(self) -> Any:
        while True:
            try:
                line = self._free.pop()
            except IndexError:
                return self._client.connection_pool.get_connection()
            if line.pid == os.getpid():
                return line

    def _again(self, line: Any, words: Sequence[Any], first: Exception) -> Any:
        failed: list[Exception] = [first]

        def resend() -> Any:
            if failed:
                raise failed.pop()  # the call that failed already is the first of the retries' calls
            line.send_command(*words, check_health=False)
            return line.read_response()

        try:
            return line.retry.call_with_retry(resend, lambda error: line.disconnect())
        except redis.ResponseError:
            self._put_back(line)
            raise
        except BaseException:
            self._drop(line)
            raise

    def _put_back(self, line: Any) -> None:
        if len(self._free) < _MOST:
            self._free.append(line)
        else:
            self._client.connection_pool.release(line)

    def _drop(self, line: Any) -> None:
        line.disconnect()
        self._client.connection_pool.release(line)

    def hang_up(self) -> None:
        """Connect anew with the next calls: the address may be another server's now."""
        while self._free:
            self._drop(self._free.pop())
