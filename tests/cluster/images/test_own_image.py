"""The example of an image of one's own: three lines, and a task that needs what the stock worker has not."""

from __future__ import annotations

from packaging.utils import canonicalize_name

from callboard.records.state import State
from tests.cluster.images.containers import IMAGES, OWN_IMAGE, ROOT, container, in_image, inspect
from tests.cluster.images.installed import installed, locked
from tests.support.board import Board


def test_it_takes_three_lines() -> None:
    lines = (ROOT / "examples/own-image/Dockerfile").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0] == "FROM callboard-worker"


def test_it_stands_on_the_stock_worker_and_adds_what_the_task_needs() -> None:
    own, stock = inspect(OWN_IMAGE), inspect(IMAGES["worker"])
    layers = stock["RootFS"]["Layers"]
    assert own["RootFS"]["Layers"][: len(layers)] == layers
    assert own["Config"]["Entrypoint"] == stock["Config"]["Entrypoint"]
    assert own["Config"]["User"] == stock["Config"]["User"]
    look = "import importlib.util; print(importlib.util.find_spec('segno') is not None)"
    assert in_image(IMAGES["worker"], look) == "False"
    assert in_image(OWN_IMAGE, look) == "True"
    # And what the stock worker was tested with is what runs here.
    assert installed(OWN_IMAGE).items() - installed(IMAGES["worker"]).items() == {
        ("acme-tasks", "1.0"),
        ("segno", installed(OWN_IMAGE)["segno"]),
    }


def test_a_package_cannot_change_what_the_worker_runs_on() -> None:
    constraints = (
        in_image(IMAGES["worker"], "import os; print(open(os.environ['PIP_CONSTRAINT']).read())")
    ).split()
    pinned = {canonicalize_name(name): version for name, version in (pin.split("==") for pin in constraints)}
    assert pinned == locked("worker")


def test_its_task_runs(store: dict[str, str], board: Board) -> None:
    with container(OWN_IMAGE, {**store, "APPS": "none"}, memory="256m") as running:
        running.await_ready()
        [record] = board.await_end(board.submit("acme.label", queue="labels", payload={"text": "AC-2026-11"}))
        assert record.state is State.COMPLETED, record.error
        assert record.result.startswith("<svg")
        running.terminate()
        assert running.await_end() == 0, running.logs()
