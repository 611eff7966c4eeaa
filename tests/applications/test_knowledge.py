"""The knowledge application's tasks, called as the plain functions that they are, on the real site."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from callboard.catalog.app import discover
from callboard.catalog.contract import Contract
from callboard.cli.demo.site import Site, SitePage, load_pages, site_folder
from callboard.context import CurrentTask, Retry, TaskLogHandler, enter
from callboard.errors import InvalidPayload
from callboard.task import registered
from callboard_apps.clients.failures import (
    Broken,
    ForbiddenAddress,
    Permanent,
    Rejected,
    TooLarge,
    Unreachable,
)
from callboard_apps.knowledge.contracts import PARSE_LINK, SUMMARISE, ParseLink, Summarise
from callboard_apps.knowledge.tasks import LONGEST_RETRY_AFTER_MS, parse_link, summarise
from tests.applications.odd_server import OddServer

PAGES = load_pages(site_folder())
GOOD = [page for page in PAGES if page.expect.state == "completed" and page.behaviour != "slow"]
BAD = [page for page in PAGES if page.expect.state == "failed"]


class Recorder:
    """A sink that keeps what a body reports."""

    def __init__(self) -> None:
        self.percents: list[float] = []
        self.messages: list[str] = []
        self.lines: list[tuple[str, str]] = []

    def progress(self, blob: bytes) -> None:
        report = json.loads(blob)
        self.percents.append(100 * report["current"] / report["total"])
        self.messages.append(report["message"])

    def log(self, level: str, text: str) -> None:
        self.lines.append((level, text))


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
def server() -> Iterator[OddServer]:
    with OddServer() as running:
        yield running


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """What the task reports, as a worker's slot would receive it."""
    found = Recorder()
    handler = TaskLogHandler()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    with enter(CurrentTask("parsing_1", "knowledge.parse_link", "parsing"), found):
        yield found
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize("page", GOOD, ids=lambda page: page.path)
def test_a_page_gives_what_the_manifest_says(site: Site, page: SitePage) -> None:
    link = ParseLink(url=site.url + page.path)
    for _ in range(page.times):
        with pytest.raises(Retry):
            parse_link(link)
    result = parse_link(link)

    assert {name: result[name] for name in page.expect.fields} == page.expect.fields
    assert result["summary"]
    assert result["summary"] != result["text"]
    assert all(each["url"].startswith(site.url) for each in result["links"])
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("page", BAD, ids=lambda page: page.path)
def test_a_page_that_cannot_be_had_fails_for_good_and_says_why(site: Site, page: SitePage) -> None:
    with pytest.raises(Permanent, match=re.escape(page.expect.says or "")) as caught:
        parse_link(ParseLink(url=site.url + page.path))

    assert not parse_link.contract.retryable(caught.value)


def test_a_busy_site_is_asked_again_when_it_wishes(site: Site) -> None:
    with pytest.raises(Retry) as caught:
        parse_link(ParseLink(url=f"{site.url}/timetable.html"))

    assert caught.value.after_ms == 1000
    assert caught.value.counts
    assert "503 Service Unavailable" in caught.value.message


def test_a_site_cannot_put_a_task_to_sleep_for_a_year(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.send(429, retry_after="31536000")

    with pytest.raises(Retry) as caught:
        parse_link(ParseLink(url=f"{server.url}/a"))
    assert caught.value.after_ms == LONGEST_RETRY_AFTER_MS


def test_other_passing_troubles_are_retried_with_the_contracts_delays(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.send(502)
    server.answers["/b"] = lambda e: e.raw(b"")
    server.answers["/c"] = lambda e: e.send(503)

    for path, kind in (("/a", Broken), ("/b", Unreachable), ("/c", Exception)):
        with pytest.raises(kind) as caught:
            parse_link(ParseLink(url=server.url + path))
        assert not isinstance(caught.value, Retry)
        assert parse_link.contract.retryable(caught.value)
    assert [parse_link.terms.retry_delay_ms(attempt, 0.5) for attempt in (1, 2, 3, 4)] == [
        1000,
        5000,
        30_000,
        30_000,
    ]


def test_progress_goes_forward_and_the_log_tells_the_story(site: Site, recorder: Recorder) -> None:
    parse_link(ParseLink(url=f"{site.url}/semillas.html"))

    assert recorder.percents == sorted(recorder.percents)
    assert recorder.percents[-1] == 100
    assert {"connecting", "fetching", "extracting", "summarising", "done"} <= set(recorder.messages)
    assert any("Fetched" in text and level == "info" for level, text in recorder.lines)
    assert any("language es" in text for _, text in recorder.lines)


def test_a_slow_page_is_watched_while_it_comes(server: OddServer, recorder: Recorder) -> None:
    def slowly(exchange: Any) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 40\r\n\r\n")
        exchange.raw(b"The first half comes")
        exchange.raw(b" before the second. ")

    server.answers["/a"] = slowly
    parse_link(ParseLink(url=f"{server.url}/a"))

    assert recorder.percents[:1] == [0]
    assert 70 in recorder.percents


def test_a_page_without_announced_length_is_told_in_bytes(server: OddServer, recorder: Recorder) -> None:
    server.answers["/a"] = lambda e: e.send(200, b"x " * 40_000, content_type="text/plain", content_length="")

    parse_link(ParseLink(url=f"{server.url}/a"))
    assert any(re.fullmatch(r"fetching, \d+ KiB so far", message) for message in recorder.messages)


def test_the_callers_limits_hold(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.send(200, b"x" * 3000, content_type="text/plain")

    with pytest.raises(TooLarge):
        parse_link(ParseLink(url=f"{server.url}/a", max_bytes=2000))
    assert parse_link(ParseLink(url=f"{server.url}/a", max_bytes=3000))["bytes"] == 3000


def test_the_largest_result_fits_into_a_record(server: OddServer) -> None:
    paragraphs = "".join(f"<p>第{i}章、{'港' * 200}。</p>" for i in range(1000))
    anchors = "".join(f'<a href="/{"é" * 300}{i}">{"港" * 300}</a>' for i in range(300))
    body = f"<html><title>{'港' * 900}</title><body><article>{paragraphs}</article>{anchors}".encode()
    server.answers["/a"] = lambda e: e.send(200, body, content_type="text/html; charset=utf-8")

    result = parse_link(ParseLink(url=f"{server.url}/a", summary_sentences=10))

    assert not result["text_complete"]
    assert len(json.dumps(result)) <= 1024 * 1024


def test_a_setting_keeps_tasks_out_of_private_networks(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_FETCH_PRIVATE_ADDRESSES", "false")

    with pytest.raises(ForbiddenAddress) as caught:
        parse_link(ParseLink(url=f"{site.url}/index.html"))
    assert not parse_link.contract.retryable(caught.value)
    assert not site.requests


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h.test/",
        "//h.test/",
        "http://",
        "http:///a",
        "http://user:pw@h.test/",
        "http://h.test/a b",
        "x" * 9,
    ],
)
def test_addresses_that_cannot_be_right_are_refused_at_the_door(url: str) -> None:
    with pytest.raises(ValidationError):
        ParseLink(url=url)
    with pytest.raises(InvalidPayload) as caught:
        parse_link.contract.adapter.encode({"url": url})  # type: ignore[union-attr]
    assert caught.value.problems[0].pointer == "#/payload/url"


@pytest.mark.parametrize(
    "url", ["http://h.test", "HTTPS://h.test:8443/a?b=@c#d", "http://[::1]:80/", "http://münchen.test/ä"]
)
def test_addresses_of_every_right_shape_pass(url: str) -> None:
    assert ParseLink(url=url).url == url


def test_a_typo_in_the_payload_is_refused() -> None:
    with pytest.raises(ValidationError, match="timout"):
        ParseLink.model_validate({"url": "http://h.test/", "timout": 5})


def test_a_text_is_summarised_in_its_own_words() -> None:
    text = (site_folder() / "notes.txt").read_text(encoding="utf-8")

    result = summarise(Summarise(text=text, max_sentences=2))

    assert result["language"] == "en"
    assert 0 < len(result["summary"]) < len(text)
    assert all(sentence in " ".join(text.split()) for sentence in re.split(r"(?<=\.) ", result["summary"]))


@pytest.mark.parametrize("contract", [PARSE_LINK, SUMMARISE])
def test_names_and_queues_are_the_applications(contract: Contract) -> None:
    assert contract.name.startswith("knowledge.")
    assert contract.queue_name in {"parsing", "ai"}
    assert contract.terms().hard_limit_ms in {60_000, 120_000}


def test_the_application_is_installed() -> None:
    [app] = discover(["knowledge"])

    assert [contract.name for contract in app.contracts] == ["knowledge.parse_link", "knowledge.summarise"]
    app.load_tasks()
    assert {contract.name for contract in app.contracts} <= set(registered())
    for contract in app.contracts:
        # What the API validates by and what the worker runs are one schema.
        assert registered()[contract.name].contract.schema == contract.schema


def test_the_api_reads_the_contracts_without_the_packages_of_the_tasks() -> None:
    assert imported_by("callboard_apps.knowledge", "httpx", "trafilatura", "lxml", "py3langid") == []


def test_a_worker_can_preload_the_tasks_before_it_forks() -> None:
    # numpy starts threads when it is imported; a process that forks must have none.
    assert imported_by("callboard_apps.knowledge.tasks", "httpx", "numpy", "trafilatura") == ["httpx"]


def imported_by(module: str, *names: str) -> list[str]:
    """Which of `names` a fresh interpreter has loaded after importing `module`."""
    code = f"import sys, {module}; print(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_missing_page_is_a_rejection_with_its_status(site: Site) -> None:
    with pytest.raises(Rejected) as caught:
        parse_link(ParseLink(url=f"{site.url}/nowhere.html"))
    assert caught.value.status == 404
