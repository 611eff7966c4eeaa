"""docs/kubernetes: its values are the chart's, its numbers the code's, and what was not run says so."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from callboard.maintenance import sampler
from callboard.metrics import demand_slots
from callboard.settings import Settings
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.submit import Submission, submit
from tests.docs import manual
from tests.docs.page import NAMES, PAGES, ROOT, rows

CHART = manual.defaults()
SCHEMA = json.loads((ROOT / manual.CHART / "values.schema.json").read_text(encoding="utf-8"))
PAGES_OF_THE_FOLDER = [name for name in NAMES if name.startswith(manual.FOLDER)]
SET = CHART["workerDefaults"]
UNITS = {"Mi": 1, "Gi": 1024, "m": 0.001}


def quantity(text: object) -> float:
    """Mebibytes, or CPUs."""
    found = re.fullmatch(r"([\d.]+)(Mi|Gi|m)?", str(text))
    assert found is not None, text
    return float(found[1]) * UNITS.get(found[2] or "", 1)


# --- values


@pytest.mark.parametrize("page", PAGES_OF_THE_FOLDER)
def test_values_in_the_text_are_values_of_the_chart(page: str) -> None:
    heads = {*CHART, *SET, *SET["autoscaling"]}
    named = {
        word.partition(":")[0]
        for word in PAGES[page].words
        if re.fullmatch(r"[a-z][A-Za-z]*(\.[A-Za-z]+)+(: \S.*)?", word)
        and word.partition(".")[0] in heads
        and not word.endswith(".com")
    }
    # Fields of queues in the API's answers, of a pod, an image's file.
    known = {"scaling.limited_by", "image.digest"}
    assert [word for word in sorted(named - known) if not manual.resolves(word, CHART)] == []


def test_a_wrong_value_is_found() -> None:
    for right in (
        "valkey.persistence.size",
        "workers.SET.replicas",
        "autoscaling.mode",
        "keda.serverAddress",
    ):
        assert manual.resolves(right, CHART), right
    for wrong in ("valkey.persistence.sizes", "workers.SET.replica", "autoscaling.modes", "keda.server"):
        assert not manual.resolves(wrong, CHART), wrong


FILES = [(page, name) for page in manual.MANUAL for name in manual.values(page)]


@pytest.mark.parametrize(("page", "name"), FILES)
def test_a_values_file_obeys_the_schema(page: str, name: str) -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(_merged(CHART, manual.values(page)[name]))


def _merged(defaults: Any, values: Any) -> Any:
    """As Helm does before it looks at the schema: over the defaults, and a null takes one away."""
    if not (isinstance(defaults, dict) and isinstance(values, dict)):
        return values
    mine = {key: _merged(defaults.get(key, {}), value) for key, value in values.items() if value is not None}
    return {key: value for key, value in defaults.items() if key not in values} | mine


def test_what_set_names_is_a_value() -> None:
    sets = [one for line in manual.helm_lines() for one in line.sets]
    assert len(sets) > 4
    assert [one for one in sets if not manual.resolves(one.partition("=")[0], CHART)] == []


def test_values_files_of_helm_lines_are_on_their_page() -> None:
    lines = list(manual.helm_lines())
    assert len(lines) > 10
    for line in lines:
        assert set(line.files) <= manual.values(line.page).keys(), line
    used = {(line.page, file) for line in lines for file in line.files}
    assert set(FILES) == used, "a values file that no command takes"


# --- what was run


@pytest.mark.parametrize("page", manual.MANUAL)
def test_a_command_is_in_a_block_that_says_whether_it_was_run(page: str) -> None:
    """An indented block is an excerpt: a synopsis, a formula. Commands of kubectl and docker are in none."""
    for block in manual.MANUAL[page].blocks:
        assert block.language or not re.search(r"^(kubectl|docker|curl|kind)\b", block.text, re.MULTILINE), (
            block.place
        )
    for text in manual.shell(page):
        first = text.splitlines()[0]
        assert not first.startswith("#") or re.match(rf"{manual.NOT_RUN}.{{10,}}", first), text
        assert not re.search(r"kubectl .*\b(exec|cp|logs|port-forward)\b", text) or first.startswith(
            manual.NOT_RUN
        )


def test_most_of_the_blocks_are_run() -> None:
    blocks = [text for page in manual.MANUAL for text in manual.shell(page)]
    run = [text for text in blocks if not text.startswith(manual.NOT_RUN)]
    assert len(run) > 2 / 3 * len(blocks)


# --- autoscaling.md


def number(cell: str) -> float | None:
    return None if cell == "–" else float(cell.removesuffix(" s").replace(",", ""))


def test_the_example_of_the_formula() -> None:
    section = manual.MANUAL["autoscaling"].section("An example")
    found = re.search(r"`slots: (\d+)`, `minReplicas: (\d+)` and `maxReplicas: (\d+)`", section)
    assert found is not None
    slots, least, most = map(int, found.groups())
    cases = [row for row in rows(section) if row[0] != "running"]
    assert len(cases) == 8
    for row in cases:
        running, ready, mean, objective, demand, pods = map(number, row)
        assert running is not None
        assert ready is not None
        computed = demand_slots(int(running), int(ready), 0, mean, objective)
        assert demand == computed, row
        assert pods == min(most, max(least, math.ceil(computed / slots))), row
    assert f"wants {math.ceil(demand_slots(16, 600, 0, 15, 60) / slots)} pods" in section


def test_the_numbers_of_autoscaling() -> None:
    text = manual.MANUAL["autoscaling"].text
    scaling = SET["autoscaling"]
    assert f"attempts of the last {sampler.WINDOW_MINUTES} minutes" in text
    assert f"`keda.cooldownPeriod` ({scaling['keda']['cooldownPeriod'] // 60} minutes)" in text
    assert f"(`metrics.podMonitor.interval`,\n{CHART['metrics']['podMonitor']['interval'][:-1]} s)" in text
    assert scaling["keda"]["fallback"]["failureThreshold"] == 3, "the page says: after three failures"
    assert f"scaleDownStabilizationSeconds: {scaling['scaleDownStabilizationSeconds']}" in text


# --- sizing.md

SIZING = manual.MANUAL["sizing"]


def measured(what: str) -> int:
    """Bytes by the table of the page."""
    [row] = [row for row in rows(SIZING.section("Redis's memory")) if row[0] == what]
    return int(row[1].replace(",", ""))


def test_a_finished_task_takes_what_was_measured() -> None:
    bench = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| a finished record .*?\| ([\d,]+) B \|.*queue, (\d+) B", bench, re.MULTILINE)
    assert found
    for task, events in found:
        # The next measurement may differ by a little, and need not change the page.
        assert measured("a finished task") == pytest.approx(int(task.replace(",", "")), rel=0.1)
        assert measured("its events, while they are kept") == pytest.approx(int(events), rel=0.1)


def test_a_waiting_task_takes_what_the_page_says(start_server: Callable[..., EmbeddedServer]) -> None:
    connection = Connection(start_server().url)

    def submit_many() -> int:
        payload = {"text": "p" * 119}
        many = [Submission(name="build", queue="reports", payload=payload) for _ in range(500)]
        connection.run(submit(connection.keys, many))
        return int(connection.client.info("memory")["used_memory"])

    first = submit_many()
    last = [submit_many() for _ in range(9)][-1]
    connection.close()
    told = measured("a task that waits")
    # Valkey 9 takes less than Redis 7, for which the page speaks.
    assert 0.6 * told < (last - first) / 4500 < 1.1 * told


def test_the_example_of_memory() -> None:
    settings = Settings()
    section = " ".join(SIZING.section("Redis's memory").split())
    kept = 10 * settings.retention_completed_count
    events = settings.events_keep / 3 * measured("its events, while they are kept")
    assert f"{settings.events_keep:,} a queue" in section
    assert f"{events / 1e6:.1f} MB" in section
    most = kept * measured("a finished task") + 10 * events + 100_000 * measured("a task that waits")
    assert f"{kept:,} × {measured('a finished task'):,} B + 10 × {events / 1e6:.1f} MB" in section
    assert f"= {most / 1e9:.1f} GB" in section
    mark = settings.retention_memory_percent / 100
    assert f"{most / 1e9:.1f} ÷ {mark:g} = {math.floor(most / 1e9 / mark * 10) / 10:.1f} GB" in section
    assert f"a million finished tasks are {measured('a finished task') / 1e3:.1f} GB" in section


def test_the_example_of_workers() -> None:
    section = " ".join(SIZING.section("Workers").split())
    slot, runner, limit = (
        quantity(value)
        for value in (SET["slotMemory"], SET["runnerMemory"], SET["resources"]["limits"]["memory"])
    )
    need = SET["slots"] * slot + runner
    assert f"({SET['slots']} × {slot:.0f}Mi + {runner:.0f}Mi = {need:.0f}Mi of 1Gi)" in section
    assert f"room for {math.floor((0.85 * limit - runner) / slot)} slots" in section
    assert f"8 need a limit of {math.ceil((8 * slot + runner) / 0.85)}Mi" in section


def test_the_chart_refuses_the_head_room_that_the_page_refuses() -> None:
    [values] = manual.values("sizing").values()
    limit = quantity(values["valkey"]["resources"]["limits"]["memory"])
    assert quantity(values["valkey"]["maxmemory"]) <= 0.6 * limit
    assert quantity(values["valkey"]["persistence"]["size"]) >= 4 * quantity(values["valkey"]["maxmemory"])


def test_what_a_default_installation_takes() -> None:
    parts = [CHART[name]["resources"] for name in ("api", "workerDefaults", "scheduler", "valkey")]
    cpu = 1000 * sum(quantity(part["requests"]["cpu"]) for part in parts)
    memory = sum(quantity(part["requests"]["memory"]) for part in parts)
    limits = sum(quantity(part["limits"]["memory"]) for part in parts)
    told = " ".join(manual.MANUAL["multi-tenant"].text.split())
    assert f"takes 4 pods, {cpu:.0f}m CPU and {memory:.0f}Mi, with limits of {limits:.0f}Mi" in told
    assert all("cpu" not in part["limits"] for part in parts), "the page says: no limits for CPU"


def test_the_user_of_a_tenant_is_the_one_that_suffices() -> None:
    """docs/operations.md has the same line, and test_operations_page.py runs it."""
    lines = {
        name: re.findall(r"^ +ACL SETUSER (\w+) on >secret (.*)$", PAGES[name].text, re.MULTILINE)
        for name in ("docs/operations.md", "docs/kubernetes/multi-tenant.md")
    }
    [[(_, proven)], [(tenant, told)]] = lines.values()
    assert told == proven.replace("cb:", f"{tenant}:")
