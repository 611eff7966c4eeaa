"""docs/state-machine.md names the states, the scripts that move tasks between them, and every reason."""

from __future__ import annotations

import re

from callboard.records.state import State
from tests.docs.page import PAGES, ROOT, rows

PAGE = PAGES["docs/state-machine.md"]
HEAD_STATES = "| state | the set's score | meaning |"
HEAD_STEPS = "| step | script | from → to | attempt |"
HEAD_REASONS = "| state | reason | |"
FOLDERS = ("callboard/broker/lua", "callboard/maintenance/lua")
STATES = {str(state) for state in State}
#: Where reasons are given: the scripts, and what decides how an attempt ends.
GIVERS = (
    *(path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.lua"))),
    ROOT / "callboard/broker/settle.py",
    ROOT / "callboard/broker/submission.py",
    ROOT / "services/worker/callboard_worker/intake.py",
    ROOT / "services/worker/callboard_worker/runner.py",
    ROOT / "services/worker/callboard_worker/settlement.py",
)
#: Words on such lines that are none: of a queue's events, and of what was asked.
NO_REASONS = {"paused", "resumed", "terminate"}


def scripts() -> dict[str, str]:
    """The scripts of a task's life by name, fragments left out."""
    found = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).glob("*.lua"):
            text = path.read_text(encoding="utf-8")
            if not text.startswith("-- Fragment"):
                found[path.stem] = text
    return found


def moves(text: str) -> bool:
    """Whether a script's head says that tasks change their state or go."""
    head = text.partition("\nlocal ")[0].partition("-- KEYS[1]")[0]
    return (
        "->" in head or re.search(r"\b(Drop|drop|Delete) (tasks|one terminal|the oldest)", head) is not None
    )


def given() -> set[str]:
    """Every reason that the code gives, read from the lines that give one."""
    found: set[str] = set()
    for path in GIVERS:
        for line in path.read_text(encoding="utf-8").splitlines():
            code = line.partition("--")[0] if path.suffix == ".lua" else line.partition("#")[0]
            if re.search(r"\bfinish\(id|back_to_pending\(id|\[REASON\] =|\breason\b.*[=:]|_REASONS", code):
                found |= set(re.findall(r"['\"]([a-z]+)['\"]", code))
    return found - STATES - NO_REASONS


def table(head: str) -> list[list[str]]:
    """The rows of the page's table with this head."""
    [part] = [part for part in PAGE.text.split("\n\n") if part.startswith(f"{head}\n")]
    return list(rows(part))[1:]


def test_the_states() -> None:
    named = [state for row in table(HEAD_STATES) for state in re.findall(r"`(\w+)`", row[0])]
    assert named == [str(state) for state in State]


def test_every_script_that_moves_tasks_is_in_the_table_and_no_other() -> None:
    named = {name for row in table(HEAD_STEPS) for name in re.findall(r"`(\w+)`", row[1])}
    known = scripts()
    assert named == {name for name, text in known.items() if moves(text)} | {"turn"}
    assert named <= known.keys()


def test_every_arrow_goes_between_states() -> None:
    for row in table(HEAD_STEPS):
        for arrow in re.findall(r"([\w, ]+) → ([a-z, ]+)", row[2]):
            words = set(re.findall(r"[a-z]+", " ".join(arrow))) - {
                "any",
                "with",
                "its",
                "old",
                "a",
                "new",
                "place",
            }
            assert words <= STATES, row


def test_every_reason_is_explained() -> None:
    told = {reason for row in table(HEAD_REASONS) for reason in re.findall(r"`(\w+)`", row[1])}
    assert told == given() | {"cancelled"}  # which is a state's name as well
