"""What the pages name exists: files, targets, settings, metrics, modules; and the pages that code names."""

from __future__ import annotations

import importlib
import re

import pytest
from prometheus_client.metrics import MetricWrapperBase

from callboard.metrics import Metrics
from callboard.settings import PREFIX, Settings
from tests.docs.page import NAMES, PAGES, ROOT

TOPS = (
    "callboard", "callboard_apps", "services", "tests", "docs", "examples", "scripts", "requirements",
    "bench", "deploy", "k8s", ".ci",
)  # fmt: skip
PATH = re.compile(rf"(?:{'|'.join(map(re.escape, TOPS))})/[\w./*<>-]*")
FILE = re.compile(r"[A-Za-z][\w-]*\.(?:md|toml|txt)|Makefile")
#: Where a page speaks of paths inside something else than the repository.
BASES = {"examples/README.md": ["examples"], "docs/architecture.md": ["callboard"]}
#: Dotted words that are no modules of ours.
NO_MODULES = {
    "callboard.apps",  # the entry point group
    "callboard.ping",
    "callboard.probe",
    "callboard.dev",  # what labels and annotations of Kubernetes begin with
}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE))
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}
SECRETS = {
    PREFIX + name.upper() + "_FILE"
    for name, field in Settings.model_fields.items()
    if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["secret"]
}


def exists(page: str, path: str) -> bool:
    pattern = re.sub(r"<[^>]*>", "*", path).rstrip("/")
    return any(
        any((ROOT / base).glob(pattern)) if "*" in pattern else (ROOT / base / pattern).exists()
        for base in ("", *BASES.get(page, ()))
    )


@pytest.mark.parametrize("page", NAMES)
def test_paths_exist(page: str) -> None:
    # An application's own files are named by their roles, not by a place.
    named = [word for word in PAGES[page].words if PATH.fullmatch(word) or FILE.fullmatch(word)]
    assert [path for path in named if not exists(page, path)] == []


@pytest.mark.parametrize("page", NAMES)
def test_make_targets_exist(page: str) -> None:
    code = "\n".join([*PAGES[page].words, *(block.text for block in PAGES[page].blocks)])
    named = set(re.findall(r"(?:^|&& )make ([a-z][a-z0-9-]*)", code, re.MULTILINE))
    assert named - TARGETS == set()


@pytest.mark.parametrize("page", NAMES)
def test_settings_exist(page: str) -> None:
    for name in set(re.findall(rf"{PREFIX}[A-Z_]*\*?", PAGES[page].text)):
        if name.endswith(("*", "_")) or name == PREFIX:
            known = [setting for setting in SETTINGS if setting.startswith(name.rstrip("*"))]
            assert known, f"{page} names {name}, and no setting begins so"
        else:
            assert name in SETTINGS | SECRETS or name == "CALLBOARD_TEST_SERVER", f"{page} names {name}"


@pytest.mark.parametrize("page", NAMES)
def test_metrics_exist(page: str) -> None:
    rooms = {path.name for path in ROOT.iterdir()} | {
        "callboard_api",
        "callboard_worker",
        "callboard_scheduler",
    }
    named = set(re.findall(r"(?<![\w/.])callboard_[a-z_]+", " ".join(PAGES[page].words)))
    # The rate of a counter, as prometheus-adapter calls it by default.
    adapted = {"callboard_http_requests"}
    assert named - metric_names().keys() - rooms - adapted == set()


@pytest.mark.parametrize("page", NAMES)
def test_modules_and_what_they_hold_exist(page: str) -> None:
    for word in PAGES[page].words:
        dotted = re.match(r"callboard\.[a-z_]+[\w.]*", word)
        if dotted is None or dotted[0] in NO_MODULES or PATH.match(word):
            continue
        assert resolves(dotted[0]), f"{page} names {dotted[0]}"


def resolves(dotted: str) -> bool:
    words = dotted.split(".")
    found = importlib.import_module(words[0])
    for number, word in enumerate(words[1:], 2):
        try:
            found = getattr(found, word)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(words[:number]))
            except ImportError:
                return False
    return True


def test_code_names_only_pages_that_exist() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {page}"
        for room in TOPS
        for path in (ROOT / room).rglob("*.*")
        if path.suffix in (".py", ".lua", ".sh")
        for page in re.findall(r"\bdocs/[\w./-]*\w\.md", path.read_text(encoding="utf-8"))
        if not (ROOT / page).is_file()
    ]
    assert missing == []


def metric_names() -> dict[str, tuple[str, ...]]:
    """Every metric as Prometheus shows it, with its labels."""
    metrics = Metrics()
    found: dict[str, tuple[str, ...]] = {
        "callboard_tasks": ("queue", "state"),
        "callboard_oldest_queued_age_seconds": ("queue",),
        "callboard_queue_demand_slots": ("queue",),
        "callboard_guests": ("queue",),
        "callboard_slots": ("queue", "state"),
    }
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            found[family.name] = metric._labelnames
    families = {family.name: family.type for family in metrics.registry.collect()}
    assert found.keys() == families.keys()
    return {f"{name}_total" if families[name] == "counter" else name: found[name] for name in found}


def test_the_operations_page_has_every_metric_with_its_labels() -> None:
    section = PAGES["docs/operations.md"].section("What to watch")
    told = {
        name: tuple(filter(None, labels.split(",")))
        for name, labels in re.findall(r"^\| `(callboard_\w+)(?:\{([a-z,]*)\})?` \|", section, re.MULTILINE)
    }
    assert told == metric_names()
