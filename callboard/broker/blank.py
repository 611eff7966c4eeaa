"""Blanks: what the submits of one task have in common, checked and packed once.

Python that runs after a wait for Redis runs cold, at three or four times its usual price: the fewer steps
between a call of `.submit()` and the bytes on the wire, the better.
"""

from __future__ import annotations

from dataclasses import replace

import msgpack

from callboard.broker.submission import (
    SUBMIT,
    Submission,
    SubmitLimits,
    Submitted,
    body_of,
    encode_payload,
    pack,
    reply_of,
    submit,
)
from callboard.records import ids
from callboard.storage.connection import Connection
from callboard.storage.operation import ScriptCall

#: The line for nearly all: one of our own ids, that waits now.
_WAITS = (b"queued", b"pending")


class Blank:
    """A submission that lacks its payload; for each payload a task. Safe to share among threads.

    `base`: without payload, message, id and nonce. Raises what `submit` raises for it.
    """

    def __init__(self, connection: Connection, base: Submission, limits: SubmitLimits) -> None:
        self.connection, self.base, self.limits = connection, base, limits
        self.queue = ids.check_queue(base.queue)
        self._body_before, self._body_after = body_of(base, b"").around_payload()
        local, body = ids.new_local().encode(), body_of(base, b"").pack()
        # In msgpack an array is its items in a row. All of our local ids have one length, so one head.
        self._before, _, rest = pack(base, local.decode(), b"").partition(local)
        self._after = rest[len(_packb(body)) :]
        call = ScriptCall(SUBMIT, connection.keys.queue(base.queue).prefix, (limits.queue_depth,))
        # A replica's word, and a queue without a name in the registry, take more than one call.
        self._stencil = None if limits.confirmed_within_ms else connection.stencil(call, limits.memory_share)

    def accept(self, payload: bytes) -> str:
        """Submit a task with this payload, a JSON object; its id. Raises as `submit`, and what it answers."""
        content = encode_payload(payload)
        connection = self.connection
        if self._stencil is not None and connection.keys.registered(self.queue):
            local = ids.new_local()
            body = b"%b%b%b" % (self._body_before, msgpack.packb(content), self._body_after)
            filled = b"%b%b%b%b" % (self._before, local.encode(), _packb(body), self._after)
            answer = connection.fill(self._stencil, filled)
            if answer is not None:
                task_id = f"{self.queue}_{local}"
                return (
                    task_id if answer.startswith(_WAITS) else _id_of(reply_of(task_id, answer, self.limits))
                )
        [submitted] = connection.run(
            submit(connection.keys, [replace(self.base, payload=content)], self.limits)
        )
        return _id_of(submitted)


def _id_of(submitted: Submitted) -> str:
    if submitted.problem is not None:
        raise submitted.problem
    return submitted.id


def _packb(value: bytes) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed
