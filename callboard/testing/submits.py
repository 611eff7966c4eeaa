"""What was submitted in a test, to look at and to assert."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_jsonable_python

from callboard.submit import Submission
from callboard.task import Task
from callboard.testing.local import LocalHandle

AnyTask = Task[..., Any, Any]


@dataclass(frozen=True)
class SubmittedTask:
    """One submit that happened inside `eager` or `recording`."""

    task: AnyTask
    submission: Submission
    handle: LocalHandle

    @property
    def name(self) -> str:
        return self.submission.name

    @property
    def payload(self) -> dict[str, Any]:
        """As it would have been sent: decoded JSON."""
        assert isinstance(self.submission.payload, bytes)
        decoded: dict[str, Any] = json.loads(self.submission.payload)
        return decoded


@dataclass
class Submits:
    """What was submitted, in order."""

    items: list[SubmittedTask] = field(default_factory=list)

    def of(self, task: AnyTask, **payload: Any) -> list[SubmittedTask]:
        """The submits of `task` whose payload has these properties (others may be there too)."""
        wanted = to_jsonable_python(payload, by_alias=True)
        return [
            item
            for item in self.items
            if item.name == task.name
            and all(name in item.payload and item.payload[name] == value for name, value in wanted.items())
        ]

    def __iter__(self) -> Iterator[SubmittedTask]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
