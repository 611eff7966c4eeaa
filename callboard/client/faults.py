"""What can go wrong between a client and the API: no answer, or an answer that refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from callboard.errors import CallboardError, Problem, Unavailable


class ApiUnreachable(Unavailable):
    """The API does not answer, or what answers at its address is something else."""

    code = "unreachable"


class RequestRefused(CallboardError):
    """The API refused a request; its problem document, taken apart.

    status: the HTTP status. title, detail: sentences for a person. problems: the single faults of a body,
    with their places. retry_after: seconds after which the same request may succeed, or None. code: the
    API's word for it, per object. document: the whole problem as it came.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, status: int, document: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.document = dict(document)
        self.title = _text(document.get("title")) or f"HTTP status {status}"
        self.detail = _text(document.get("detail"))
        self.problems = _problems(document.get("errors"))
        self.retry_after = retry_after
        super().__init__(_sentence(self.title, self.detail, self.problems))
        # Shadows the class's word on purpose: a refusal carries the API's.
        self.__dict__["code"] = _text(document.get("code")) or "internal"


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _problems(errors: object) -> tuple[Problem, ...]:
    if not isinstance(errors, list):
        return ()
    return tuple(
        Problem(_text(entry.get("pointer")), _text(entry.get("detail")), _text(entry.get("code")))
        for entry in errors
        if isinstance(entry, dict)
    )


def _sentence(title: str, detail: str, problems: Sequence[Problem]) -> str:
    """One line: the title, and the single faults with their places, or else the detail."""
    faults = [f"{problem.detail} ({problem.pointer})" for problem in problems if problem.detail]
    told = "; ".join(faults) if faults else detail
    return " ".join((f"{title}: {told}" if told and told != title else title).split())
