"""What a process needs that runs Dramatiq's own Worker: presence, leases, maintenance."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence

import callboard
from callboard import clock, settings
from callboard.broker import outbox
from callboard.broker.keeper import Keeper
from callboard.catalog import published
from callboard.catalog.contract import Contract
from callboard.catalog.presence import Presence
from callboard.catalog.queue import declared_queues
from callboard.maintenance.loops import Loops
from callboard.maintenance.policy import Policy
from callboard.maintenance.rounds import Rounds
from callboard.storage.connection import Connection


def worker_id(host: str | None = None) -> str:
    """`<host>-<6 random>`: new at each process start, for a restarted container keeps host and pid."""
    return f"{host or socket.gethostname()}-{secrets.token_hex(3)}"


class Guest:
    """One Dramatiq Worker process as the platform sees it.

    queues, contracts: what it serves and knows to run, asked for again and again.
    """

    def __init__(
        self,
        connection: Connection,
        queues: Callable[[], Sequence[str]],
        contracts: Callable[[], Sequence[Contract]],
    ) -> None:
        known = settings.load()
        self._connection = connection
        self._contracts = contracts
        self._published = False
        self.worker = worker_id()
        self._queues = queues
        self._since = clock.now_ms()
        #: Nonces of claims whose answer was lost, by queue: asked again, they give the same tasks.
        self.unanswered: dict[str, str] = {}
        self.lease_ms = int(known.worker_lease_seconds * 1000)
        self.keeper = Keeper(
            connection, lease_ms=lambda _: self.lease_ms, shown=self._shown, on_word=self._ignore
        )
        self._loops = Loops(
            connection,
            self.worker,
            policy=Policy.of(known),
            queues=queues,
            deliver=outbox.delivering(known),
        )
        self._catalog = Rounds("The catalog", self._publish)

    def start(self) -> None:
        """Show the presence and begin renewing."""
        self.keeper.start(self.lease_ms)
        self._loops.start()
        self._catalog.start()

    def stop(self) -> None:
        """End the threads; what is still held runs out by itself."""
        self._catalog.stop()
        self._loops.stop()
        self.keeper.stop()

    def kick(self, queue: str) -> None:
        """Something was put into `queue`'s outbox."""
        self._loops.nudge(queue)

    def declared(self) -> None:
        """There is a new actor or queue: publish it."""
        self._catalog.wake()

    def _publish(self) -> float:
        # A queue that nobody declares here may be declared by others, whose word would be lost.
        served = [name for name in self._queues() if name in declared_queues()]
        operation = published.refresh if self._published else published.publish
        self._connection.run(operation(self._connection.keys, self._contracts(), served, self.worker))
        self._published = True
        return float(published.REFRESH_SECONDS)

    def _shown(self) -> Presence:
        return Presence(
            id=self.worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=callboard.__version__,
            since=self._since,
            queues=tuple(self._queues()),
            slots=0,
            busy=0,
        )

    def _ignore(self, queue: str, local: str, token: str, word: str) -> None:
        # Dramatiq's Worker has no way to stop one task; a cancel is honoured when it retries, is released or
        # rescued, and a late outcome of a lost lease is refused by its token.
        if word == "lost":
            self.keeper.drop(queue, local, token)
