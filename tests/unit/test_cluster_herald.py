"""What a worker tells the cluster of its pod, and how little it needs the answer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard import clock
from callboard.cluster.herald import DELETION_COST, PROTECTION, Herald, deletion_cost
from tests.support.kube_server import KubeServer, kube_server
from tests.support.waiting import wait_until

MINUTE = 60_000
SAFE, KARPENTER = PROTECTION


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KubeServer]:
    with kube_server(tmp_path) as server:
        yield server


class Hands:
    """The work of a worker, as the herald asks for it."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.looks = 0

    def __call__(self) -> list[int]:
        self.looks += 1
        return self.started

    def take(self, minutes_ago: float = 0.0) -> None:
        self.started = [*self.started, clock.now_ms() - int(minutes_ago * MINUTE)]

    def seen(self) -> None:
        """The herald has looked twice since."""
        before = self.looks
        wait_until(lambda: self.looks >= before + 2, description="a look of the herald")


def herald(server: KubeServer, hands: Hands, **options: float | bool | None) -> Herald:
    given = {"pace_seconds": 0.05, "look_seconds": 0.01, **options}
    made = Herald(server.kube(), "w-1", hands, **given)  # type: ignore[arg-type]
    made.start()
    return made


def costs(server: KubeServer) -> list[str | None]:
    return [annotations[DELETION_COST] for _, annotations in server.patches if DELETION_COST in annotations]


@pytest.mark.parametrize(
    ("ages", "cost"),
    [
        ([], 0),
        ([0], 10),
        ([59_999], 10),
        ([MINUTE], 11),
        ([90_000, 90_000], 13),
        ([60 * MINUTE, 5 * MINUTE], 75),
        ([-5_000], 10),
        ([10**15], 2**31 - 1),
    ],
)
def test_the_cost_is_the_work_that_would_be_lost(ages: list[int], cost: int) -> None:
    now = 10**15 + 10**12
    assert deletion_cost([now - age for age in ages], now) == cost


def test_idle_then_busy_then_idle(server: KubeServer) -> None:
    hands = Hands()
    teller = herald(server, hands)
    wait_until(lambda: costs(server) == ["0"], description="the first word")
    hands.take(minutes_ago=3.5)
    wait_until(lambda: costs(server) == ["0", "13"], description="busy")
    hands.started = []
    wait_until(lambda: costs(server) == ["0", "13", "0"], description="idle again")
    assert {pod for pod, _ in server.patches} == {"w-1"}
    hands.seen()
    assert len(server.patches) == 3, "nothing changes, nothing is written"
    assert server.counted("patch pods", "ok") == 3
    teller.stop()


def test_it_writes_no_oftener_than_its_pace(server: KubeServer) -> None:
    hands = Hands()
    teller = herald(server, hands, pace_seconds=30)
    wait_until(lambda: costs(server) == ["0"], description="the first word")
    for _ in range(3):
        hands.take(minutes_ago=5)
        hands.started = []
    hands.take(minutes_ago=5)
    assert not wait_for_more(server, 1)
    teller.stop()


def wait_for_more(server: KubeServer, known: int) -> bool:
    """Whether another word comes within half a second."""
    try:
        wait_until(lambda: len(server.patches) > known, timeout=0.5)
    except AssertionError:
        return False
    return True


def test_a_long_task_is_told_anew_when_its_minutes_have_doubled(
    server: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand workers must not write each minute; who has far more in hand must show."""
    hands = Hands()
    now = clock.now_ms()
    passed = [0]
    monkeypatch.setattr(clock, "now_ms", lambda: now + passed[0] * MINUTE)
    hands.started = [now]
    teller = herald(server, hands)
    wait_until(lambda: costs(server) == ["10"], description="the first word")
    for minute in range(1, 17):
        passed[0] = minute
        hands.seen()
    wait_until(lambda: costs(server)[-1] == "26", description="the sixteenth minute")
    assert costs(server) == ["10", "11", "12", "14", "18", "26"]
    teller.stop()


def test_without_the_permission_it_says_so_once_and_works_on(
    server: KubeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.status = 403
    hands = Hands()
    with caplog.at_level(logging.INFO, "callboard.cluster"):
        teller = herald(server, hands)
        wait_until(lambda: server.asked, description="the first try")
        hands.take()
        wait_until(lambda: caplog.records, description="its word")
        assert not wait_for_more(server, 2)
        teller.stop(5)
    [said] = caplog.messages
    assert "`patch` on pods" in said
    assert "CALLBOARD_CLUSTER_DELETION_COST=false" in said
    assert server.asked == ["PATCH pods/w-1"] * 2, "it does not ask again and again"
    assert server.counted("patch pods", "forbidden") == 2


def test_one_refusal_is_not_believed(server: KubeServer, caplog: pytest.LogCaptureFixture) -> None:
    """An API server that starts knows no Roles for a moment; that is no reason for a long silence."""
    hands = Hands()
    with caplog.at_level(logging.INFO, "callboard.cluster"):
        teller = herald(server, hands, pace_seconds=0.2)
        wait_until(lambda: costs(server) == ["0"], description="the first word")
        server.status = 403
        hands.take()
        wait_until(lambda: server.counted("patch pods", "forbidden") == 1, description="the refusal")
        server.status = 0
        wait_until(lambda: costs(server) == ["0", "10"], description="the next word")
        teller.stop(5)
    assert caplog.messages == []


def test_an_api_server_that_is_away_is_told_later(
    server: KubeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.status = 503
    hands = Hands()
    hands.take()
    with caplog.at_level(logging.INFO, "callboard.cluster"):
        teller = herald(server, hands, pace_seconds=0.02)
        wait_until(lambda: len(server.asked) >= 3, description="some tries")
        server.status = 0
        wait_until(lambda: costs(server) == ["10"], description="the word")
        wait_until(lambda: len(caplog.messages) == 2, description="its two lines")
    assert "goes on, and tells it later" in caplog.messages[0]
    assert caplog.messages[1] == "The cluster is told of our work again."
    teller.stop()


def test_it_stops_although_the_api_server_hangs(server: KubeServer) -> None:
    server.gate.clear()
    hands = Hands()
    teller = herald(server, hands)
    wait_until(lambda: hands.looks, description="a look")
    begun = clock.monotonic()
    teller.stop(0.2)
    assert clock.monotonic() - begun < 2


def test_long_tasks_protect_the_pod_and_the_node(server: KubeServer) -> None:
    hands = Hands()
    teller = herald(server, hands, deletion_cost=False, protect_seconds=600)
    wait_until(
        lambda: server.patches == [("w-1", {SAFE: None, KARPENTER: None})], description="the first word"
    )
    hands.take(minutes_ago=1)
    hands.seen()
    hands.take(minutes_ago=11)
    wait_until(lambda: server.patches[-1][1] == {SAFE: "false", KARPENTER: "true"}, description="protection")
    hands.started = hands.started[:1]
    wait_until(lambda: server.patches[-1][1] == {SAFE: None, KARPENTER: None}, description="its end")
    assert all(DELETION_COST not in annotations for _, annotations in server.patches)
    teller.stop()


def test_with_nothing_to_tell_it_asks_nothing(server: KubeServer) -> None:
    hands = Hands()
    teller = herald(server, hands, deletion_cost=False)
    teller.stop()
    assert (hands.looks, server.asked) == (0, [])
