"""The ear: hears at once that a running task was cancelled. What it misses, the next renewal tells."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import redis

from callboard import clock
from callboard.errors import CallboardError
from callboard.storage.connection import Connection

logger = logging.getLogger(__name__)

LISTEN_SECONDS = 1.0
#: After so long a silence the server is asked whether it is there: to a connection that the network has
#: forgotten one would listen for hours.
QUIET_SECONDS = 10.0


class Ear:
    """One thread, subscribed to this worker's control channel in each of its queues.

    `told(queue, local, token, word)`: word is cancel or terminate.
    """

    def __init__(
        self,
        connection: Connection,
        worker: str,
        queues: Sequence[str],
        told: Callable[[str, str, str, str], None],
    ) -> None:
        self._connection = connection
        self._channels = {connection.keys.queue(queue).control(worker): queue for queue in queues}
        self._told = told
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ear", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End; within a second."""
        self._stopping = True

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._listen()
            except (redis.RedisError, CallboardError, OSError, ValueError) as error:
                logger.debug("The control channel broke: %s", error)
                clock.sleep(0.5)

    def _listen(self) -> None:
        client: Any = self._connection.blocking()
        try:
            subscription = client.pubsub(ignore_subscribe_messages=True)
            subscription.subscribe(*self._channels)
            heard = asked = clock.monotonic()
            while not self._stopping:
                message = subscription.get_message(timeout=LISTEN_SECONDS)
                now = clock.monotonic()
                if message:
                    heard = now
                elif now - heard > 3 * QUIET_SECONDS:
                    raise ConnectionError("The server has said nothing for long.")
                elif now - max(heard, asked) > QUIET_SECONDS:
                    asked = now
                    subscription.ping()
                if message and message["type"] == "message":
                    queue = self._channels.get(message["channel"].decode())
                    words = message["data"].decode().split(" ")
                    if queue is not None and len(words) == 3:
                        self._told(queue, words[1], words[2], words[0])
        finally:
            client.close()
