"""The waiter: blocks on one queue's wake list while the worker has room and nothing is ready."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import redis

from callboard import clock
from callboard.broker import turn
from callboard.errors import CallboardError
from callboard.storage.connection import Connection
from callboard.storage.lines import Lines

logger = logging.getLogger(__name__)

#: A token can be lost with the worker that took it; so an idle worker looks by itself this often.
LOOK_SECONDS = 2.0


class Waiter:
    """One thread and one connection a queue. `woken(queue)` tells the pump; False: it has no room."""

    def __init__(self, connection: Connection, queue: str, woken: Callable[[str], bool]) -> None:
        self._connection = connection
        self._queue = queue
        self._woken = woken
        self._armed = threading.Event()
        self._stopping = False
        self._client: Any = None
        self._lines: Lines | None = None
        self._thread = threading.Thread(target=self._run, name=f"waiter-{queue}", daemon=True)

    def start(self) -> None:
        """Start the thread; it listens once armed."""
        self._thread.start()

    def arm(self) -> None:
        """Listen until the next token."""
        self._armed.set()

    def stop(self) -> None:
        """End. The thread may stay in its blocking call for a moment; it is a daemon."""
        self._stopping = True
        self._armed.set()
        client = self._client
        if client is not None:
            try:
                client.close()
            except (redis.RedisError, OSError):
                logger.debug("The waiter's connection was gone already.")

    def _run(self) -> None:
        wake = self._connection.keys.queue(self._queue).wake
        while not self._stopping:
            self._armed.wait()
            if self._stopping:
                return
            try:
                token = self._call("BLPOP", wake, LOOK_SECONDS)
            except (redis.RedisError, CallboardError, OSError, ValueError) as error:
                if self._stopping:
                    return
                logger.debug("Waiting on %s: %s", wake, error)
                self._client = self._lines = None
                clock.sleep(0.5)
                token = None
            if token is None:
                self._woken(self._queue)
                continue
            self._armed.clear()
            if not self._woken(self._queue):
                self._pass_on()

    def _call(self, *words: Any) -> Any:
        if self._client is None:
            self._client = self._connection.blocking(LOOK_SECONDS)
            # What a task waits for when it finds this worker idle: the shortest way back into Python.
            self._lines = Lines(self._client) if isinstance(self._client, redis.Redis) else None
        if self._lines is not None:
            return self._lines.call(words)
        return self._client.execute_command(*words)

    def _pass_on(self) -> None:
        """The token may be what another, idle worker waits for."""
        try:
            self._connection.run(turn.pass_on(self._connection.keys, self._queue))
        except CallboardError:
            logger.debug("A wake token was lost with the connection; idle workers look by themselves.")
