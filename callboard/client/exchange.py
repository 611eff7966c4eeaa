"""Exchanges: what a client says to the API and what it makes of the answer, without any I/O.

An exchange is a generator. It yields a `Call` and gets the `Reply` (or the `Fault`) sent back, yields a
`Pause` and gets None; it returns the result. `transport` drives it, blocking or on an event loop, so there is
one implementation of every operation, retries included.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from callboard import clock
from callboard.client.faults import ApiUnreachable, RequestRefused

T = TypeVar("T")

#: A call that may be repeated is repeated for this long while nothing answers.
PATIENCE_SECONDS = 1.0
#: A read that gets no byte for this long is given up.
READ_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_PASSING_STATUSES = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. `body`: what is sent as JSON, None for no body.

    repeatable: sending it twice does what sending it once does, so a lost answer may be asked for again.
    """

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = False
    read_seconds: float = READ_SECONDS
    patience_seconds: float = PATIENCE_SECONDS


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whatever its status. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Fault:
    """No answer. `sent`: the request may have reached the API and been acted on.

    idle: nothing but silence on an open connection.
    """

    message: str
    sent: bool
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for so many seconds."""

    seconds: float


Answer = Reply | Fault
Exchange = Generator[Call | Pause, Answer | None, T]


def ask(call: Call) -> Exchange[Reply]:
    """The reply to `call`, of a status below 300.

    What may be repeated is, after a pause that grows or that the API names, as long as its patience lasts.
    Raises RequestRefused, ApiUnreachable.
    """
    given_up = clock.monotonic() + call.patience_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        answer = yield call
        assert answer is not None
        seconds = max(pause, _asked_to_wait(answer))
        if not _worth_repeating(call, answer) or clock.monotonic() + seconds > given_up:
            return accepted(answer)
        yield Pause(seconds)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def accepted(answer: Answer) -> Reply:
    """`answer` if it is a reply below 300. Raises RequestRefused, ApiUnreachable."""
    if isinstance(answer, Fault):
        raise ApiUnreachable(answer.message)
    if answer.status < 300:
        return answer
    raise refusal(answer)


def document(reply: Reply) -> Any:
    """The JSON of a reply. Raises ApiUnreachable when it is none: then something else answered."""
    try:
        return json.loads(reply.body)
    except ValueError:
        raise ApiUnreachable(
            f"What answers there is not Callboard's API (status {reply.status}, no JSON). Is the URL right?"
        ) from None


def refusal(reply: Reply) -> Exception:
    """The error for a reply of 300 and above."""
    try:
        problem = json.loads(reply.body)
    except ValueError:
        problem = None
    if isinstance(problem, dict) and isinstance(problem.get("title"), str):
        return RequestRefused(reply.status, problem, _retry_after(reply))
    if reply.status in _PASSING_STATUSES:
        return ApiUnreachable(f"Something in front of the API answers with status {reply.status}.")
    return ApiUnreachable(
        f"What answers there is not Callboard's API (status {reply.status}). Is the URL right?"
    )


def _worth_repeating(call: Call, answer: Answer) -> bool:
    if isinstance(answer, Fault):
        return call.repeatable or not answer.sent
    # 429 means that nothing was done, so even a submit may follow it.
    return answer.status == 429 or (call.repeatable and answer.status in _PASSING_STATUSES)


def _asked_to_wait(answer: Answer) -> float:
    return 0.0 if isinstance(answer, Fault) else _retry_after(answer) or 0.0


def _retry_after(reply: Reply) -> float | None:
    try:
        return max(0.0, float(reply.headers.get("retry-after", "")))
    except ValueError:
        return None  # absent, or a date: no clock of ours is compared with the server's
