"""An upgrade from the chart before this one, and a rolling restart, while tasks come and run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cluster.agent.api import Away, Refused
from tests.cluster.lab.release import NAME, Release, faults, naps
from tests.cluster.lab.tide import in_hand
from tests.support.ledger import Ledger
from tests.support.waiting import wait_until

_PERIOD_SECONDS = 0.25


class Visitors:
    """Submit a nap of 1 s four times a second, each to a pod that the API's Service has at that moment."""

    def __init__(self, release: Release) -> None:
        self._release, self._key = release, release.key()
        self.ids: list[str] = []
        self.failures: list[str] = []

    @contextmanager
    def coming(self) -> Iterator[None]:
        """As long as the block lasts."""
        over = threading.Event()

        def come() -> None:
            number = 0
            while not over.wait(_PERIOD_SECONDS):
                self._submit(number)
                number += 1

        thread = threading.Thread(target=come, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _submit(self, number: int) -> None:
        try:
            addresses = sorted(self._release.addresses())
            if not addresses:
                self.failures.append("the Service has no endpoint")
                return
            url = f"http://{addresses[number % len(addresses)]}:8000/v1/tasks"
            body = {"name": "nap", "payload": {"seconds": 1}}
            headers = {"Authorization": f"Bearer {self._key}"}
            reply = httpx.post(url, json=body, headers=headers, timeout=20, trust_env=False)
        except (Away, Refused, httpx.HTTPError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            return
        if reply.status_code == 202:
            self.ids.append(reply.json()["id"])
        elif reply.status_code != 503:  # "come again": while an upgrade restarts the chart's own Valkey
            self.failures.append(f"{reply.status_code}: {reply.text}")


@pytest.mark.timeout(400)
def test_nobody_notices_an_upgrade_and_a_rolling_restart(
    new_release: Callable[..., Release], previous_chart: Path, ledger: Ledger
) -> None:
    release = new_release("upgrade")
    release.install(naps(mode="none"), chart=previous_chart)
    release.kubectl("scale", f"deployment/{NAME}-worker-naps", "--replicas=2")
    release.wait_for_replicas("worker-naps", 2, 60)
    before = _pods(release)

    visitors = Visitors(release)
    with visitors.coming():
        wait_until(lambda: len(visitors.ids) >= 8, 20, "tasks come")

        values = naps(mode="none")
        values["workers"]["naps"]["podAnnotations"] = {"example.com/upgrade": "2"}
        release.upgrade(values)
        upgraded = _pods(release)
        assert not before["worker"] & upgraded["worker"], "the upgrade rolled no worker, so it proves nothing"

        for deployment in ("worker-naps", "api", "scheduler"):
            release.kubectl("rollout", "restart", f"deployment/{NAME}-{deployment}")
        for deployment in ("worker-naps", "api", "scheduler"):
            release.rolled_out(deployment)
        for component, names in _pods(release).items():
            assert not names & upgraded[component], f"{component} was not restarted"
        after = len(visitors.ids)
        wait_until(lambda: len(visitors.ids) >= after + 8, 20, "tasks still come")

    with release.client() as client:
        wait_until(lambda: in_hand(client) == 0, 90, "the queue is empty", poll=0.5)
        assert faults(client, visitors.ids, ledger.starts()) == []
    assert visitors.failures == []
    assert release.replicas("worker-naps") == (2, 2)
    print(f"\n{len(visitors.ids)} tasks came and ended over an upgrade and a restart of everything")


def _pods(release: Release) -> dict[str, set[str]]:
    """Names of pods by component; without Valkey's, which keeps its name."""
    components = ("worker", "api", "scheduler")
    return {
        component: {pod["metadata"]["name"] for pod in release.pods(component)} for component in components
    }
