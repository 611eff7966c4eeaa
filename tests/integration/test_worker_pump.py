"""The worker's own loops when something goes wrong: none of them stops, forgets or starves another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from callboard import clock
from callboard.broker import ear, turn, waiter
from callboard.broker.ear import Ear
from callboard.broker.keeper import Keeper
from callboard.broker.turn import Answer, Claim
from callboard.broker.waiter import Waiter
from callboard.catalog.presence import Presence
from callboard.errors import StoreFull, StoreUnavailable, StoreUnfit
from callboard.storage import connection as connection_module
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command, Request, ScriptCall
from callboard.submit import Submission, submit
from callboard_worker import pump as pump_module
from callboard_worker.pump import Finished, Pump
from tests.support.proxy import Proxy
from tests.support.redis_server import new_server
from tests.support.waiting import wait_until

Meddle = Callable[[ScriptCall, Callable[[], Any]], Any]


class Meddled(Connection):
    """A real connection; `meddle(call, go_on)` stands around each turn."""

    meddle: Meddle | None = None

    def execute(self, request: Request) -> Any:
        if self.meddle is not None and isinstance(request, ScriptCall) and request.script.name == "turn":
            return self.meddle(request, lambda: super(Meddled, self).execute(request))
        return super().execute(request)


@dataclass
class Hand:
    """A runner's side of the pump: takes what comes, ends nothing."""

    room_left: int = 100
    waiting: int = 0
    taken: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    upset: str = ""

    def room(self, queue: str) -> int:
        return self.room_left

    def claimed(self, queue: str, claims: list[Claim]) -> None:
        if queue == self.upset:
            raise ZeroDivisionError(queue)
        self.taken += [queue] * len(claims)
        self.claims += claims

    def recorded(self, queue: str, finished: Finished, answer: Answer) -> None:
        self.answers.append(answer)

    def quiet(self, queue: str) -> None:
        """Nobody listens here: only what the test wakes is looked at again."""

    def tidy(self) -> None:
        """Nothing waits here."""


@pytest.fixture
def connection(redis_url: str, namespace: str) -> Iterator[Meddled]:
    made = Meddled(redis_url, namespace=namespace)
    yield made
    made.close()


@pytest.fixture
def pump(connection: Meddled) -> Iterator[Callable[..., tuple[Pump, Hand]]]:
    pumps: list[Pump] = []

    def start(*queues: str, **fields: Any) -> tuple[Pump, Hand]:
        hand = Hand(**fields)
        made = Pump(connection, "w", [(queue, 20_000) for queue in queues], hand)
        pumps.append(made)
        made.start()
        return made, hand

    yield start
    connection.meddle = None
    for made in pumps:
        assert made.stop(10)


def put(connection: Connection, *queues: str) -> None:
    connection.run(submit(connection.keys, [Submission(name="a.task", queue=queue) for queue in queues]))


def test_a_token_that_comes_during_a_turn_is_not_forgotten(connection: Meddled, pump: Any) -> None:
    """Given a turn that has found nothing and is on its way back
    When a task comes and its wake token is heard
    I expect the task to be claimed by the next turn, not by a look by chance.
    """
    turns: list[int] = []
    made: list[Pump] = []

    def late(_: ScriptCall, go_on: Callable[[], Any]) -> Any:
        wait_until(lambda: made)
        reply = go_on()
        turns.append(1)
        if len(turns) == 1:
            put(connection, "q")
            assert made[0].wake("q")
        return reply

    connection.meddle = late
    started, hand = pump("q")
    made.append(started)
    wait_until(lambda: hand.taken == ["q"], description="the claim")


def test_a_claim_of_the_waiters_thread_is_not_left_behind_by_the_stop(
    connection: Meddled, pump: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a waiter that is about to claim for its token
    When the pump is told to stop, with nothing left to record
    I expect it to wait for that claim, and to record what comes of it.
    """
    made, hand = pump("q")
    wait_until(
        lambda: made._asleep and not made._queues["q"].hot, description="its sleep after its first turn"
    )
    put(connection, "q")
    about_to_claim, go_on = threading.Event(), threading.Event()

    def numbered() -> str:
        about_to_claim.set()
        assert go_on.wait(10)
        return "99:late"

    def give_back(queue: str, claims: list[Claim]) -> None:
        [claim] = claims
        made.done(queue, Finished(turn.release(claim.local, claim.token, cause="shutdown"), None))

    monkeypatch.setattr(made, "_numbered", numbered)
    hand.claimed = give_back
    waiter = threading.Thread(target=made.wake, args=("q",))
    waiter.start()
    assert about_to_claim.wait(10)
    made.stop(0.3)
    go_on.set()
    waiter.join(10)
    wait_until(lambda: hand.answers == ["ok"])


def test_a_waiters_turn_wakes_the_thread_only_for_what_is_due_in_its_nap(
    connection: Meddled, pump: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a pump's thread in a long nap
    When the waiter takes the turn for a task that runs at once
    I expect the thread to sleep on, and to wake in time for one that is due before the nap's end.
    """
    monkeypatch.setattr(pump_module, "_TICK_SECONDS", 300.0)
    made, hand = pump("q")
    wait_until(lambda: made._nap_ends > clock.monotonic() + 200)
    nap = made._nap_ends
    put(connection, "q")
    assert made.wake("q")
    assert hand.taken == ["q"]
    assert made._nap_ends == nap

    connection.run(submit(connection.keys, [Submission(name="a.task", queue="q", delay_ms=200)]))
    assert made.wake("q")
    wait_until(lambda: hand.taken == ["q", "q"], 20, "the claim of the one that is due")


def test_a_node_that_is_away_starves_no_queue_of_another_node(
    connection: Meddled, pump: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster, with the queue of precedence on the node that is away."""
    monkeypatch.setattr(connection, "address", replace(connection.address, kind="cluster"))
    away = threading.Event()
    away.set()

    def on_two_nodes(call: ScriptCall, go_on: Callable[[], Any]) -> Any:
        if "{down}" in call.prefix and away.is_set():
            raise StoreUnavailable("its node is away")
        return go_on()

    put(connection, *["up"] * 3, "down")
    connection.meddle = on_two_nodes
    started, hand = pump("down", "up")
    wait_until(lambda: hand.taken == ["up"] * 3, 30, "the other queue's claims")
    assert started.failing
    away.clear()
    wait_until(lambda: hand.taken == ["up"] * 3 + ["down"], 30, "the claim once it is back")
    wait_until(lambda: not started.failing, 30, "its health")


def test_what_cannot_be_taken_starves_no_other_queue(connection: Meddled, pump: Any) -> None:
    put(connection, "bad", "good")
    _, hand = pump("bad", "good", upset="bad")
    wait_until(lambda: hand.taken == ["good"], 30, "the other queue's claim")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), StoreUnfit("a new password"), StoreFull("full"), StoreUnavailable("away")]
)
def test_ends_survive_whatever_a_turn_raises(connection: Meddled, pump: Any, error: Exception) -> None:
    """They are tried again, and their answers arrive although the claims of the same turn are a trouble."""
    put(connection, "q")
    started, hand = pump("q")
    wait_until(lambda: hand.claims, 30, "the claim")
    raised: list[int] = []

    def once(_: ScriptCall, go_on: Callable[[], Any]) -> Any:
        if len(raised) < 5:
            raised.append(1)
            raise error
        return go_on()

    connection.meddle = once
    hand.upset = "q"
    put(connection, "q")
    [claim] = hand.claims
    started.done("q", Finished(turn.completed(claim.local, claim.token, b"1"), None))
    started.wake("q")
    wait_until(lambda: hand.answers == ["ok"], 30, "the answer")


def test_an_outage_costs_no_processor_time(connection: Meddled, pump: Any) -> None:
    """With ends that wait to be recorded, the pump sleeps between its tries; while it stops, too."""
    put(connection, "q", "q")
    started, hand = pump("q", "r", "s")
    wait_until(lambda: len(hand.claims) == 2, 30, "the claims")
    tries: list[str] = []

    def away(call: ScriptCall, _: Callable[[], Any]) -> Any:
        tries.append(call.prefix)
        raise StoreUnavailable("away")

    connection.meddle = away
    started.done("q", Finished(turn.completed(hand.claims[0].local, hand.claims[0].token, b"1"), None))
    wait_until(lambda: tries, 30, "a try")
    begun = time.thread_time(), time.process_time()
    assert not started.stop(1.5)
    assert len(tries) <= 8
    assert time.process_time() - begun[1] < 0.5


@pytest.fixture
def proxied(tmp_path: Path, server_kind: str) -> Iterator[tuple[EmbeddedServer, Proxy]]:
    with new_server(tmp_path / "redis", server_kind) as server:
        assert server.port is not None
        with Proxy(server.port) as proxy:
            yield server, proxy


def test_a_waiter_whose_connection_the_network_has_forgotten_looks_by_itself(
    proxied: tuple[EmbeddedServer, Proxy], namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes and nothing breaks: so it is after a NAT or a firewall has dropped a connection."""
    monkeypatch.setattr(waiter, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(connection_module, "SOCKET_TIMEOUT_SECONDS", 0.3)
    server, proxy = proxied
    connection = Connection(proxy.url(server.url), namespace=namespace)
    woken: list[float] = []

    def heard(_: str) -> bool:
        woken.append(clock.monotonic())
        return True

    made = Waiter(connection, "q", heard)
    made.start()
    made.arm()
    try:
        wait_until(lambda: len(woken) >= 2, 30, "its first looks")
        proxy.hang()
        count = len(woken)
        wait_until(lambda: len(woken) > count + 1, 30, "a look of its own")
        proxy.flow()
        count = len(woken)
        made.arm()
        wait_until(lambda: len(woken) > count + 1, 30, "its looks after that")
    finally:
        proxy.flow()
        made.stop()
        connection.close()


def test_an_ear_whose_connection_the_network_has_forgotten_hears_again(
    proxied: tuple[EmbeddedServer, Proxy], namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In silence it asks whether somebody is there; without an answer it subscribes anew."""
    monkeypatch.setattr(ear, "LISTEN_SECONDS", 0.05)
    monkeypatch.setattr(ear, "QUIET_SECONDS", 0.6)
    server, proxy = proxied
    connection = Connection(proxy.url(server.url), namespace=namespace)
    direct = Connection(server.url, namespace=namespace)
    told: list[str] = []
    made = Ear(connection, "w", ["q"], lambda queue, local, token, word: told.append(word))
    made.start()
    channel = connection.keys.queue("q").control("w")

    def hears(word: str) -> bool:
        direct.execute(Command("PUBLISH", channel, f"{word} 01 1.n-1"))
        return word in told

    try:
        wait_until(lambda: hears("cancel"), 30, "a word", poll=0.1)
        before = proxy.accepted
        wait_until(lambda: hears("first"), 20, "a word after a silence", poll=2.0)
        assert proxy.accepted == before, "pings are answered: no need to subscribe anew"
        proxy.hang()
        wait_until(lambda: proxy.accepted > before, 30, "another connection")
        proxy.flow()
        wait_until(lambda: hears("second"), 30, "a word afterwards", poll=0.1)
    finally:
        proxy.flow()
        made.stop()
        connection.close()
        direct.close()


def test_leases_are_renewed_whatever_hearing_of_one_raises(connection: Meddled) -> None:
    put(connection, "q", "q")
    claims = connection.run(turn.turn(connection.keys, "q", "w", want=2, nonce="n", lease_ms=5000)).claims
    words: list[str] = []

    def upset(queue: str, local: str, token: str, word: str) -> None:
        words.append(word)
        raise ZeroDivisionError(word)

    shown = Presence("w", "host", 1, "0", 0, ("q",), 1, 0)
    keeper = Keeper(connection, lease_ms=lambda _: 5000, shown=lambda: shown, on_word=upset)
    keeper.hold("q", claims[0].local, "no such token")
    keeper.start(400)
    try:
        wait_until(lambda: len(words) >= 3, 30, "three rounds")
    finally:
        keeper.stop()
    assert set(words) == {"lost"}
