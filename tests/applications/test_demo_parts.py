"""The demo's parts one by one: its site, its judgement, what it shows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from rich.console import Console

from callboard.cli.demo.screen import attempts, make_screen, outcome_table, stage
from callboard.cli.demo.site import Expectation, Site, SitePage, load_pages, site_folder
from callboard.cli.demo.verdict import Verdict, gist, judge


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


def test_the_manifest_names_only_pages_that_are_there() -> None:
    folder = site_folder()
    pages = load_pages(folder)

    assert len({page.path for page in pages}) == len(pages)
    for page in pages:
        there = (folder / page.path.lstrip("/")).is_file()
        assert there is (page.behaviour in ("plain", "slow", "busy")), page.path


def test_every_page_of_the_folder_is_in_the_manifest() -> None:
    folder = site_folder()
    known = {page.path for page in load_pages(folder)}

    files = {f"/{file.name}" for file in folder.iterdir()} - {"/manifest.json", "/almanac.css"}
    assert files <= known


def test_every_link_of_the_site_leads_somewhere() -> None:
    from lxml import html

    folder = site_folder()
    known = {page.path for page in load_pages(folder)} | {"/almanac.css"}
    for file in folder.glob("*.html"):
        for _, _, link, _ in html.fromstring(file.read_bytes()).iterlinks():
            assert f"/{link}" in known, f"{file.name} links to {link}"


def test_a_page_that_is_busy_answers_503_as_often_as_the_manifest_says() -> None:
    with Site() as own, httpx.Client(trust_env=False) as client:
        answers = [client.get(f"{own.url}/timetable.html") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [503, 503, 200, 200]
    assert answers[0].headers["retry-after"] == "1"
    assert own.requests["/timetable.html"] == 4


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/tide-mill.html?x=1", 200),
        ("/old-mill.html", 301),
        ("/lighthouse-keeper.html", 404),
        ("/manifest.json", 404),
        ("/../manifest.json", 404),
        ("/%2e%2e/README.md", 404),
        ("/..%2fREADME.md", 404),
    ],
)
def test_how_the_site_answers(site: Site, path: str, status: int) -> None:
    with httpx.Client(trust_env=False) as client:
        assert client.get(site.url + path).status_code == status
        assert client.head(site.url + path).status_code == status


def test_a_page_in_another_charset_is_sent_in_it(site: Site) -> None:
    with httpx.Client(trust_env=False) as client:
        answer = client.get(f"{site.url}/fahrradkueche.html")

    assert answer.headers["content-type"] == "text/html; charset=iso-8859-1"
    assert "Fahrradküche".encode("latin-1") in answer.content


def test_the_endless_page_goes_on_until_the_reader_leaves(site: Site) -> None:
    received = 0
    with (
        httpx.Client(trust_env=False, timeout=60) as client,
        client.stream("GET", f"{site.url}/foghorn.html") as answer,
    ):
        for piece in answer.iter_raw():
            received += len(piece)
            if received > 500_000:
                break
    assert received > 500_000


def test_closing_the_site_does_not_wait_for_its_slow_pages() -> None:
    client = httpx.Client(trust_env=False)
    with client, Site() as own, client.stream("GET", f"{own.url}/ferry-log.html") as answer:
        pieces = answer.iter_raw()
        assert next(pieces)
        own.close()
        with pytest.raises(httpx.TransportError):
            list(pieces)


def task(**fields: Any) -> dict[str, Any]:
    return {
        "id": "parsing_1", "state": "completed", "reason": None, "attempt": 1, "attempts": [], "error": None,
        "result": {"title": "T", "language": "en", "date": None, "summary": "S."}, "progress": None,
        "wait_ms": 12, "run_ms": 3456, **fields,
    }  # fmt: skip


GOOD = SitePage("/a", Expectation("completed", fields={"title": "T", "date": None}))
GONE = SitePage("/b", Expectation("failed", reason="permanent", says="404"))
NOT_FOUND = {"type": "Rejected", "message": "404 Not Found: the page does not exist"}


@pytest.mark.parametrize(
    ("page", "resource"),
    [
        (GOOD, task()),
        (GONE, task(state="failed", reason="permanent", error=NOT_FOUND, result=None)),
        (SitePage("/c", Expectation("completed", attempts=3)), task(attempt=3)),
        (SitePage("/c", Expectation("completed", attempts=3)), task(attempt=4)),
    ],
)
def test_what_ends_as_it_should_is_not_complained_of(page: SitePage, resource: dict[str, Any]) -> None:
    finding = judge(page, resource)

    assert finding.complaint is None
    assert not finding.lost


@pytest.mark.parametrize(
    ("page", "resource", "complaint"),
    [
        (GOOD, None, "does not know"),
        (GOOD, task(state="running"), "ended running instead of completed"),
        (GOOD, task(state="failed", error=NOT_FOUND), "404 Not Found"),
        (GOOD, task(result=None), "no result"),
        (GOOD, task(result={"title": "U", "date": None}), "title is 'U' instead of 'T'"),
        (GOOD, task(result={"title": "T", "date": "2026-01-01"}), "date is '2026-01-01'"),
        (GONE, task(), "ended completed instead of failed"),
        (GONE, task(state="failed", reason="exhausted", error=NOT_FOUND), "because of 'exhausted'"),
        (GONE, task(state="failed", reason="permanent", error={"message": "410"}), "does not say '404'"),
        (SitePage("/c", Expectation("completed", attempts=3)), task(attempt=2), "took 2 attempts"),
    ],
)
def test_what_ends_otherwise_is_complained_of(
    page: SitePage, resource: dict[str, Any] | None, complaint: str
) -> None:
    finding = judge(page, resource)

    assert finding.complaint is not None
    assert complaint in finding.complaint


def verdict(
    *resources: dict[str, Any] | None, killed: int = 1, interrupted: tuple[str, ...] = ("x",)
) -> Verdict:
    findings = [judge(SitePage(f"/{i}", Expectation("completed")), r) for i, r in enumerate(resources)]
    return Verdict(findings, killed, frozenset(interrupted))


def test_the_headline_counts_what_happened() -> None:
    good = verdict(task(id="x", attempt=2), task(id="y"))

    assert good.headline == "1 worker killed, 0 tasks lost"
    assert good.complaints == []


def test_a_rescue_without_an_attempt_is_a_second_run_too() -> None:
    assert verdict(task(id="x", interruptions=[{"cause": "lease expired"}])).complaints == []


def test_unknown_and_unfinished_tasks_are_lost() -> None:
    bad = verdict(task(id="x", attempt=2), None, task(state="running"), killed=0)

    assert bad.headline == "0 workers killed, 2 tasks lost"
    assert len(bad.complaints) == 3


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (verdict(task(id="x", attempt=2), killed=0), "0 workers were killed"),
        (verdict(task(id="x", attempt=2), interrupted=()), "proves nothing"),
        (verdict(task(id="x", attempt=1)), "0 ran again"),
        (verdict(), "No task was submitted"),
    ],
)
def test_a_demo_that_shows_nothing_does_not_succeed(found: Verdict, complaint: str) -> None:
    assert complaint in " ".join(found.complaints)


def test_the_table_shows_attempts_and_sixty_characters() -> None:
    lost = {"number": 1, "outcome": "lost", "error": None}
    busy = {"number": 2, "outcome": "failed", "error": {"message": "503 Service Unavailable: later"}}
    resource = task(attempt=3, attempts=[lost, busy, {"number": 3, "outcome": "completed"}])
    resource["result"]["summary"] = "long " * 40
    out = io.StringIO()
    Console(file=out, width=132).print(outcome_table([judge(GOOD, resource), judge(GONE, None)]))

    assert attempts(resource) == "3 (lost, 503)"
    assert attempts(task(interruptions=[{"cause": "lease expired"}])) == "1 (lease expired)"
    assert gist(resource)[:60] in out.getvalue()
    assert gist(resource)[:61] not in out.getvalue()
    assert "0.0 s" in out.getvalue()
    assert "3.5 s" in out.getvalue()
    assert any(line.split()[:2] == ["/b", "lost"] for line in out.getvalue().splitlines())


def test_without_a_terminal_each_change_is_one_line() -> None:
    out = io.StringIO()
    running = task(state="running", progress={"percent": 10.0, "message": "fetching [bold]"})
    with make_screen(Console(file=out, width=132), [GOOD]) as screen:
        for percent in (10.0, 20.0):
            running["progress"]["percent"] = percent
            screen.update(GOOD, running)
        screen.say("A worker dies.")
        screen.update(GOOD, task())

    assert out.getvalue().splitlines() == [
        "  /a: running: fetching [bold]",
        "A worker dies.",
        "  /a: completed",
    ]


def test_on_a_terminal_each_task_has_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with make_screen(console, [GOOD, GONE]) as screen:
        screen.update(GOOD, task())
        screen.update(GONE, task(state="failed", error=NOT_FOUND))

    last = out.getvalue().splitlines()
    assert any("/a" in line and "100%" in line and "━" in line for line in last)
    assert any("/b" in line and "404 Not Found" in line for line in last)


def test_a_stage_tells_the_attempt_and_the_step() -> None:
    assert stage(task(state="pending", reason="backoff", attempt=2)) == "pending (backoff), attempt 2"
    assert (
        stage(task(state="running", attempt=2, progress={"message": "reading"}))
        == "running, attempt 2: reading"
    )
    assert stage(task(state="queued", attempt=0)) == "queued"
    assert stage(task(state="running"), stranded=True) == "held by the dead worker"


def test_a_long_note_leaves_the_bars_their_place() -> None:
    out = io.StringIO()
    page = SitePage("/a", Expectation("completed"), note="x" * 300)
    with make_screen(Console(file=out, force_terminal=True, width=80, color_system=None), [page]) as screen:
        screen.update(page, task(state="running", progress={"percent": 100.0, "message": "y" * 300}))

    assert any("━" * 24 in line for line in out.getvalue().splitlines())


def test_a_count_that_grows_is_no_line_of_its_own() -> None:
    out = io.StringIO()
    with make_screen(Console(file=out, width=132), [GOOD]) as screen:
        for size in (10, 20):
            screen.update(GOOD, task(state="running", progress={"message": f"fetching, {size} KiB so far"}))

    assert len(out.getvalue().splitlines()) == 1
