"""Task ids: `QUEUE_LOCAL`, so that an id alone says where its record is.

Ours have a 26-character lower-case ULID as local part. A Dramatiq program's own message ids keep
`[A-Za-z0-9.-]`; every other byte becomes `~hh`, and a later run of an id that has ended adds `~2`, `~3`, …
"""

from __future__ import annotations

import os
import random
import re
import threading

from callboard import clock
from callboard.errors import InvalidDeclaration, TaskNotFound

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_QUEUE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}", re.ASCII)
_LOCAL = re.compile(r"[A-Za-z0-9.~-]{1,512}", re.ASCII)
_PLAIN = re.compile(rb"[A-Za-z0-9.-]")

#: Ten bits at a time: thirteen look-ups an id instead of twenty-six.
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]

_lock = threading.Lock()
#: The milliseconds and the noise of the id before, and all of its text but the last pair.
_last = (0, 0, "")
#: An id must be nobody else's, and need not be a secret. Its own, for a program may seed the module's.
_random = random.Random()


def new_local() -> str:
    """A ULID: 48 bits of milliseconds and 80 random ones, increasing within this process."""
    global _last  # noqa: PLW0603 - one sequence a process, guarded by the lock
    now = clock.now_ms()
    with _lock:
        ms, noise, stem = _last
        if now > ms:
            # A bit of head-room for the increments.
            ms, noise, stem = now, _random.getrandbits(79), ""
        else:
            noise += 1
        # Those of one millisecond differ in the last pair, nearly always.
        if not stem or not noise & 1023:
            stem = _stem(ms, noise)
        _last = (ms, noise, stem)
    return stem + _PAIRS[noise & 1023]


def _stem(ms: int, noise: int) -> str:
    high, low = noise >> 40, noise & 0xFFFFFFFFFF  # small integers are quicker to shift
    pairs = _PAIRS
    return (
        f"{pairs[ms >> 40]}{pairs[ms >> 30 & 1023]}{pairs[ms >> 20 & 1023]}{pairs[ms >> 10 & 1023]}"
        f"{pairs[ms & 1023]}"
        f"{pairs[high >> 30]}{pairs[high >> 20 & 1023]}{pairs[high >> 10 & 1023]}{pairs[high & 1023]}"
        f"{pairs[low >> 30]}{pairs[low >> 20 & 1023]}{pairs[low >> 10 & 1023]}"
    )


def _begin_anew() -> None:
    # A forked child would go on from the same number as its parent, and its task be taken for a resend. And
    # who held the lock is not there any more.
    global _last, _lock
    _lock, _last = threading.Lock(), (0, 0, "")
    _random.seed()


os.register_at_fork(after_in_child=_begin_anew)


def new_id(queue: str) -> str:
    """A fresh task id for `queue`."""
    return f"{queue}_{new_local()}"


def foreign_id(queue: str, message_id: str) -> str:
    """The task id for another program's message id."""
    escaped = "".join(
        chr(byte) if _PLAIN.match(bytes([byte])) else f"~{byte:02x}" for byte in message_id.encode()
    )
    return f"{queue}_{escaped}"


def split(task_id: str) -> tuple[str, str]:
    """`(queue, local id)`. Raises TaskNotFound for what cannot be a task id."""
    queue, underscore, local = task_id.rpartition("_")
    if not underscore or not _QUEUE.fullmatch(queue) or not _LOCAL.fullmatch(local):
        raise TaskNotFound(task_id)
    return queue, local


def queue_of(task_id: str) -> str:
    """The queue that a task id names. Raises TaskNotFound for what cannot be a task id."""
    return split(task_id)[0]


def check_queue(name: str) -> str:
    """`name`, if it may name a queue. Raises InvalidDeclaration if not."""
    if not _QUEUE.fullmatch(name):
        raise InvalidDeclaration(
            f"{name!r} cannot name a queue: expected a letter and up to 63 letters, digits, '.', '_', '-'."
        )
    return name
