from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from callboard import logging as ours


@pytest.fixture(autouse=True)
def restored_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for handler in handlers:
        root.removeHandler(handler)
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(False)


def test_json_lines_carry_the_bound_fields_and_the_traceback() -> None:
    stream = io.StringIO()
    ours.configure("json", "info", stream)
    logger = logging.getLogger("callboard.worker")
    with ours.bound(task_id="q_1", message="not the line's own"):
        try:
            raise ValueError("no")
        except ValueError:
            logger.exception("it %s", "failed")
    logger.debug("too low")
    [line] = stream.getvalue().splitlines()
    document = json.loads(line)
    assert document["message"] == "it failed"
    assert document["level"] == "error"
    assert document["logger"] == "callboard.worker"
    assert document["task_id"] == "q_1"
    assert "ValueError: no" in document["exception"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document["at"])


def test_text_lines_are_for_people() -> None:
    stream = io.StringIO()
    ours.configure("text", "debug", stream)
    with ours.bound(task_id="q_1"), ours.bound(attempt=2):
        logging.getLogger("x").debug("hello")
    logging.getLogger("x").info("bare")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} DEBUG   x: hello \[task_id=q_1 attempt=2\]", first)
    assert second.endswith("INFO    x: bare")


def test_configuring_again_replaces_the_former_handler() -> None:
    first, second = io.StringIO(), io.StringIO()
    ours.configure("text", "info", first)
    ours.configure("text", "info", second)
    logging.getLogger("x").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
