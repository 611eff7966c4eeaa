"""An outage that begins while the rescuer looks at the leases."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from callboard.maintenance.policy import Policy
from callboard.maintenance.rescuer import Rescued, Rescuer
from callboard.maintenance.watch import Watch
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Request, ScriptCall
from tests.support import tasks
from tests.support.waiting import wait_until

LEASE_SECONDS = 0.4


class Interrupted(Connection):
    """Redis stands still for two leases just before it answers what leases have run out."""

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__(server.url, namespace="t")
        self._pid = server.pid
        self.outages = 0

    def execute(self, request: Request) -> Any:
        if isinstance(request, ScriptCall) and request.script.name == "expired" and self.outages == 0:
            assert self._pid is not None
            os.kill(self._pid, signal.SIGSTOP)
            time.sleep(2 * LEASE_SECONDS)  # the outage
            os.kill(self._pid, signal.SIGCONT)
            self.outages += 1
        return super().execute(request)


@pytest.fixture
def server(start_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    return start_server()


def test_leases_that_ran_out_while_they_were_read_are_not_judged(server: EmbeddedServer) -> None:
    """Given a rescuer that has seen Redis healthy for long, and a task whose lease was renewed just now
    When Redis stands still between its look at Redis's health and its look at the leases
    I expect the task to be left to its worker, until Redis has been healthy for a lease again.
    """
    connection = Interrupted(server)
    watch = Watch(interval_seconds=0.02)

    def steady() -> bool:
        watch.observe(connection)
        return watch.steady("", LEASE_SECONDS)

    wait_until(steady, description="a healthy lease", poll=0.02)
    [(local, _)] = tasks.run(connection, "q", lease_ms=int(LEASE_SECONDS * 1000))
    rescuer = Rescuer(watch, lambda _: Policy(lease_seconds=LEASE_SECONDS))

    def judged() -> Rescued:
        steady()  # A machine that stands still in between looks like an outage too: then it comes again.
        return rescuer.run_once(connection, "q")

    wait_until(lambda: judged().held_back and connection.outages == 1, description="the outage")
    assert tasks.record(connection, "q", local).state == "running"
    wait_until(steady, description="another healthy lease", poll=0.02)
    wait_until(lambda: judged().states == {"queued": 1}, description="the rescue")
    connection.close()
