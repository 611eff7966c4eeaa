"""Lines: connections kept out of redis-py's pool, for the calls that a worker and a submitter live from.

The pool asks each connection before each use whether it is still good, and counts it for telemetry on the
way out and back: half of a round trip's CPU time. A line is taken and put back by one list operation; whether
it is good is found by using it, and what fails is sent again as redis-py would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import redis

#: More of them at once are rare, and go back to the pool.
_MOST = 8


class Lines:
    """Connections of `client`'s pool that stay taken. Safe to share among threads, and with a fork."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._free: list[Any] = []
        # A URL may bound the pool more tightly. Were all of it idle lines, the other commands would find the
        # pool empty for ever.
        self._most = min(_MOST, client.connection_pool.max_connections // 2)
        pool = client.connection_pool
        self._packer = pool.connection_class(**pool.connection_kwargs)  # never connected

    def packed(self, words: Sequence[Any]) -> Sequence[bytes]:
        """A command as it goes over the wire, for `send`."""
        found: Sequence[bytes] = self._packer.pack_command(*words)
        return found

    def call(self, words: Sequence[Any]) -> Any:
        """The reply to one command that may be sent twice, undecoded.

        Raises what redis-py raises; the connection's own retries come first.
        """
        return self.send(self.packed(words))

    def send(self, packed: Sequence[bytes]) -> Any:
        """As `call`, for a command that is packed already."""
        line = self._take()
        try:
            # Nearly every call ends here; the retries cost more than the call.
            reply = _exchange(line, packed)
        except redis.ResponseError:
            self._put_back(line)
            raise
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            reply = self._again(line, packed, error)
        except BaseException:
            # An exception thrown into this thread in mid-reply: the next caller would read the rest of it.
            self._drop(line)
            raise
        self._put_back(line)
        return reply

    def stream(self, commands: Iterator[Sequence[Any]]) -> Iterator[Any]:
        """The replies to `commands`, in order; the next one is asked for and sent before a reply is read.

        Ends with what redis-py raises at the first that fails, or with what `commands` raises. What was sent
        and not answered then may or may not have been executed.
        """
        line = self._take()
        pending = 0
        good = False
        try:
            for words in commands:
                line.send_packed_command(self.packed(words), check_health=False)
                pending += 1
                if pending > 1:
                    yield line.read_response()
                    pending -= 1
            while pending:
                pending -= 1
                yield line.read_response()
            good = True
        finally:
            if good:
                self._put_back(line)
            else:
                self._drop(line)

    def _take(self) -> Any:
        while True:
            try:
                line = self._free.pop()
            except IndexError:
                return self._client.connection_pool.get_connection()
            if line.pid == os.getpid():
                return line

    def _again(self, line: Any, packed: Sequence[bytes], first: Exception) -> Any:
        failed: list[Exception] = [first]

        def resend() -> Any:
            if failed:
                raise failed.pop()  # the call that failed already is the first of the retries' calls
            line.send_packed_command(packed, check_health=False)
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
        if len(self._free) < self._most:
            self._free.append(line)
        else:
            self._client.connection_pool.release(line)

    def _drop(self, line: Any) -> None:
        line.disconnect()
        self._client.connection_pool.release(line)

    def hang_up(self) -> None:
        """Connect anew with the next calls: the address may be another server's now."""
        while True:
            try:
                line = self._free.pop()
            except IndexError:  # the last one, or a caller has just taken it
                return
            self._drop(line)


def _exchange(line: Any, packed: Sequence[bytes]) -> Any:
    """Send and read on redis-py's own socket and parser, without what its two methods put around that.

    It costs as much as all else that a submit does in Python. Where a later redis-py has other attributes,
    or the line is not connected, it is those methods.
    """
    sock, parser = getattr(line, "_sock", None), getattr(line, "_parser", None)
    if sock is None or parser is None:
        line.send_packed_command(packed, check_health=False)
        return line.read_response()
    try:
        for piece in packed:
            sock.sendall(piece)
        reply = parser.read_response()
    except TimeoutError as error:
        raise redis.TimeoutError(f"No answer in time: {error}") from error
    except OSError as error:
        raise redis.ConnectionError(f"The connection broke: {error}") from error
    except BaseException:
        # Here, where the caller's handler is still to come: a second exception thrown into this thread while
        # the socket closes must find somebody who gives the line back.
        line.disconnect()
        raise
    if isinstance(reply, redis.ResponseError):
        raise reply
    return reply
