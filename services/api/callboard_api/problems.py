"""Problems: what goes wrong over HTTP, as RFC 9457 documents. The one table from codes to statuses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from callboard.errors import CallboardError, IllegalTransition, InvalidPayload, Problem, Unconfirmed

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:callboard:problem:"
#: A problem lists so many faults at most: a person reads the first, a program mends one at a time.
MOST_ERRORS: Final = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """The status and title of a code. `retry_after` in seconds, for what passes by itself."""

    status: int
    title: str
    retry_after: int | None = None


#: Every code that the API answers with; `docs/errors.md` describes each.
KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "invalid-json": Kind(400, "Not JSON"),
        "unauthorized": Kind(401, "No valid key"),
        "forbidden": Kind(403, "Not allowed with this key"),
        "forbidden-host": Kind(403, "Unknown host name"),
        "forbidden-origin": Kind(403, "Foreign origin"),
        "not-found": Kind(404, "Not found"),
        "method-not-allowed": Kind(405, "Method not allowed"),
        "not-acceptable": Kind(406, "Not acceptable"),
        "conflict-state": Kind(409, "The present state forbids it"),
        "payload-too-large": Kind(413, "Too large"),
        "unsupported-media-type": Kind(415, "Unsupported media type"),
        "invalid-body": Kind(422, "Invalid body"),
        "invalid-payload": Kind(422, "Invalid payload"),
        "invalid-query": Kind(422, "Invalid query"),
        "unknown-task": Kind(422, "Unknown task"),
        "unknown-queue": Kind(422, "Unknown queue"),
        "not-supported-yet": Kind(422, "Not supported yet"),
        "queue-full": Kind(429, "Queue full", retry_after=5),
        "rate-limited": Kind(429, "Too many requests", retry_after=1),
        "internal": Kind(500, "Internal error"),
        "store-unavailable": Kind(503, "Redis is away", retry_after=2),
        "store-full": Kind(507, "Redis is full"),
    }
)

# What the library raises under a code of its own that has no place over HTTP.
_TRANSLATED: Final = {
    "invalid-declaration": "invalid-body",
    "invalid-setting": "invalid-body",
    "unavailable": "store-unavailable",
    "store-unfit": "store-unavailable",
}


class Rejected(Exception):
    """A request that is answered with a problem.

    code: of KINDS. errors: the faults one by one, with their places. members: further members of the
    document; headers: of the answer.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        kind = KINDS[code]
        self.code = code
        self.status = kind.status
        self.detail = detail
        self.errors = tuple(errors)
        self.members = dict(members or {})
        self.headers = dict(headers or {})
        if kind.retry_after is not None:
            self.headers.setdefault("Retry-After", str(kind.retry_after))

    def document(self, request_id: str | None = None) -> dict[str, Any]:
        """The problem as JSON; without `instance` where it stands inside another answer."""
        document: dict[str, Any] = {
            "type": TYPE_PREFIX + self.code,
            "title": KINDS[self.code].title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.members,
        }
        if request_id is not None:
            document["instance"] = f"urn:request:{request_id}"
        if self.errors:
            document["errors"] = [
                {"pointer": fault.pointer, "detail": fault.detail, "code": fault.code}
                for fault in self.errors[:MOST_ERRORS]
            ]
        return document


def of(error: CallboardError) -> Rejected:
    """The problem for an error of the library. What is our own fault tells nothing of its inside."""
    code = _TRANSLATED.get(error.code, error.code)
    if code not in KINDS or code == "internal":
        return Rejected("internal", "Something went wrong here; the log has it under this request's id.")
    if code == "store-unavailable" and not isinstance(error, Unconfirmed):
        return Rejected(code, "Redis does not answer. Nothing is lost; try again shortly.")
    members = {"state": str(error.state)} if isinstance(error, IllegalTransition) else {}
    errors = error.problems if isinstance(error, InvalidPayload) else ()
    return Rejected(code, error.message, errors=errors, members=members)


def unknown_fields(pointers: Sequence[str]) -> list[Problem]:
    """A fault for each field that nobody knows."""
    return [Problem(pointer, "This field is not known.", "unknown-field") for pointer in pointers]


def escape(step: str) -> str:
    """One step of a JSON pointer."""
    return step.replace("~", "~0").replace("/", "~1")


def encode(document: Mapping[str, Any]) -> bytes:
    """A problem's bytes."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
