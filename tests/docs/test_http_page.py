"""docs/http.md: its routes are the API's, and its curl lines answer as it says."""

from __future__ import annotations

import json
import re

from callboard.events.stream import TYPES
from callboard_api.table import TABLE
from tests.docs.laptop import Laptop
from tests.docs.page import PAGES, rows

PAGE = PAGES["docs/http.md"]
#: Event types that nothing sends yet.
SILENT = {"worker.joined", "worker.left"}
_TIMED_OUT = 28


def test_the_table_has_every_route() -> None:
    told = [row[0].strip("`") for row in rows(PAGE.section("All routes")) if row[0] != "route"]
    assert sorted(told) == sorted(f"{endpoint.method} {endpoint.path}" for endpoint in TABLE)


def test_every_type_of_event_is_named() -> None:
    named = set(re.findall(r"`((?:task|queue|worker)\.[a-z]+)`", PAGE.section("Watch")))
    assert named - {"task.snapshot"} == set(TYPES.values()) - SILENT


def curl_lines() -> list[tuple[str, int]]:
    """Each curl line and the status that it says."""
    lines = [line for block in PAGE.blocks if not block.language for line in block.text.splitlines()]
    assert all(line.startswith("curl ") for line in lines)
    told = [re.fullmatch(r"(curl .*?) +# (\d{3})", line) for line in lines]
    assert all(told)
    return [(found[1], int(found[2])) for found in told if found]


def test_the_tour_goes_to_every_noun() -> None:
    text = "\n".join(line for line, _ in curl_lines())
    for endpoint in TABLE:
        if endpoint.path.startswith("/v1/"):
            pattern = re.sub(r"\{\w+\}", "[\\\\w$]+", endpoint.path)
            assert re.search(rf":8000{pattern}[ '?\n]", text + "\n"), endpoint.path


def test_the_curl_lines_answer_as_the_page_says(readers_laptop: Laptop) -> None:
    last = ""
    for line, status in curl_lines():
        # An endless stream is cut off; what it has said by then was well.
        patience = 1 if " -N " in line else 30
        call = rf"ID={last}; {line} -sS --max-time {patience} -w '\n%{{http_code}} %{{exitcode}}'"
        told = readers_laptop.run(call, code=None)
        body, _, numbers = told.rpartition("\n")
        code, ended = map(int, numbers.split())
        assert (code, ended in (0, _TIMED_OUT)) == (status, True), f"{line}\n{told}"
        if line.startswith("curl http://127.0.0.1:8000/v1/tasks ") and code == 202:
            last = json.loads(body)["id"]
        if code == 422:
            assert json.loads(body)["code"] in PAGE.section("Submit")
