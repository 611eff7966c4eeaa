"""What can be wrong in the store, in words, and what mending does about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class FaultKind(NamedTuple):
    """meaning: what is wrong. cure: what `--repair` does.

    passing: it comes about in normal work, and the maintenance loops mend it soon.
    """

    meaning: str
    cure: str
    passing: bool = False


#: Every kind by its code; `docs/cli.md` lists them, and a test holds the two together.
FAULTS: Mapping[str, FaultKind] = {
    "no-record": FaultKind(
        "an id in a set, without a record",
        "one that waits or runs fails (`permanent`), so that people see it; elsewhere the id is dropped",
    ),
    "undecodable": FaultKind(
        "a record that cannot be read",
        "the task fails (`permanent`); the bytes are kept for a week as `bad:ID`",
    ),
    "no-payload": FaultKind(
        "a waiting task whose payload is gone", "it fails (`permanent`) under its own name"
    ),
    "no-set": FaultKind(
        "a record whose id is in no state's set",
        "the id goes where the record says; a running one with its lease over, so it is renewed or rescued",
    ),
    "two-sets": FaultKind("an id in more than one state's set", "the record's state stays"),
    "wrong-set": FaultKind("an id in a set that its record does not name", "it goes where the record says"),
    "wrong-score": FaultKind(
        "a due time, a place in the queue or a lease that no script could have written",
        "the record's own; a lease hours away is over now, so the task is renewed or rescued",
    ),
    "unlisted": FaultKind("a task that `all` does not list, so that no list shows it", "it is listed"),
    "no-age": FaultKind("a queued task without its place in `age`", "it gets it"),
    "stray-age": FaultKind("a place in `age` for a task that is not queued", "it is dropped"),
    "leftovers": FaultKind("a payload, history or log whose task is gone", "they are dropped"),
    "outbox-orphan": FaultKind("half of an outbox item", "it is dropped: it cannot be delivered"),
    "stale-fairness": FaultKind(
        "fairness keys of a priority in which nothing is queued", "the priority starts anew"
    ),
    "stale-claim": FaultKind(
        "the last claim of a worker that is gone: passing, no failure of the check",
        "it is forgotten",
        passing=True,
    ),
    "unregistered": FaultKind(
        "a queue with tasks that the registry does not know, so that no list shows it", "it is registered"
    ),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `subject`: a task id, an outbox member, a priority, a worker or a queue."""

    queue: str
    code: str
    subject: str
    mended: bool

    def to_json(self) -> dict[str, str | bool]:
        """For programs."""
        return {"queue": self.queue, "code": self.code, "subject": self.subject, "mended": self.mended}
