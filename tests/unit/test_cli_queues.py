"""`callboard queues list`: the pods that serve a queue, where there is a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from callboard.cli import queues as commands
from callboard.client import Queue


class Api:
    """Answers with these queues."""

    def __init__(self, *documents: dict[str, Any]) -> None:
        self._found = [Queue.read(document) for document in documents]

    def queues(self) -> list[Queue]:
        return self._found


def listed(monkeypatch: pytest.MonkeyPatch, *documents: dict[str, Any]) -> list[list[str]]:
    """The words of each line."""

    @contextmanager
    def api() -> Iterator[Api]:
        yield Api(*documents)

    monkeypatch.setattr(commands, "api", api)
    done = CliRunner().invoke(commands.queues, ["list"], catch_exceptions=False)
    return [line.split() for line in done.output.splitlines()]


def queue(name: str, scaling: dict[str, Any] | None) -> dict[str, Any]:
    return {"name": name, "depth": {"queued": 3}, "demand_slots": 3, "scaling": scaling}


def test_pods_of_queues_in_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    heading, mail, rest, bare = listed(
        monkeypatch,
        queue("mail", {"desired": 5, "ready": 2, "max": 8, "limited_by": "max"}),
        queue("rest", {"desired": 1, "ready": 1, "max": None, "limited_by": None}),
        queue("bare", None),
    )
    assert heading[-1] == "PODS"
    assert mail[-4:] == ["2/5", "of", "8,", "max"]
    assert rest[-2:] == ["open", "1/1"]
    assert bare[-1] == "open"


def test_outside_a_cluster_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    heading, mail = listed(monkeypatch, queue("mail", None))
    assert (heading[-1], mail[-1]) == ("STANDING", "open")
