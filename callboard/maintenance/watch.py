"""The watch: has Redis been healthy long enough to call an expired lease a lost one?

After an outage, or a step of Redis's clock, every lease looks expired although its worker lives. So nothing
is rescued before Redis has been seen healthy for a whole lease, in which each living worker has renewed.
Every process that may come to hold the maintenance lease watches from its start, holder or not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from callboard import clock
from callboard.errors import CallboardError
from callboard.storage.connection import Connection
from callboard.storage.operation import Everywhere, NodeOf, Operation

#: Redis's clock may differ from ours by so much, in seconds, before it counts as a step.
CLOCK_TOLERANCE_SECONDS = 1.0
#: Steps too small to see from one answer to the next add up against a sample that is at most so old.
_ANCHOR_SECONDS = 20.0
_GAPS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said: who it is, its clock in seconds, and our monotonic clock when it was heard."""

    run_id: str
    time: float
    at: float


@dataclass(slots=True)
class _Node:
    first: Answer
    last: Answer
    anchor: Answer
    gaps: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_GAPS_KEPT))


class Watch:
    """Redis's health as this process has seen it, node by node.

    interval_seconds: how often it asks; gaps between answers shorter than three times that are no gaps.
    """

    def __init__(self, interval_seconds: float = 1.0) -> None:
        self.interval_seconds = interval_seconds
        self._nodes: dict[str, _Node] = {}
        self._homes: dict[str, tuple[str, float]] = {}

    def observe(self, connection: Connection) -> None:
        """Ask every node once. Raises StoreUnavailable when the only one does not answer."""
        for node, answer in connection.run(_ask()).items():
            if answer is not None:
                self.note(node, answer)

    def note(self, node: str, answer: Answer) -> None:
        """Take in one answer. A node that is another one by now, or whose clock stepped, begins anew."""
        known = self._nodes.get(node)
        if (
            known is None
            or known.last.run_id != answer.run_id
            or _stepped(known.last, answer)
            or _stepped(known.anchor, answer)
        ):
            self._nodes[node] = _Node(answer, answer, answer)
            return
        gap = answer.at - known.last.at
        if gap > 3 * self.interval_seconds:
            known.gaps.append((answer.at, gap))
        known.last = answer
        if answer.at - known.anchor.at > _ANCHOR_SECONDS:
            known.anchor = answer

    def steady(self, node: str, lease_seconds: float, *, since: float = 0.0) -> bool:
        """Whether `node` has answered for a whole lease: the same server, its clock true, without a gap.

        A gap is a quarter of the lease: leases are renewed that often, so a shorter silence costs none.
        `since`: our monotonic clock when the node took over what is asked about.
        """
        known = self._nodes.get(node)
        if known is None:
            return False
        # Two answers of one run id a lease apart also say that it has been up for a lease.
        begun = max(known.first.at, since)
        gap = max(lease_seconds / 4, 3 * self.interval_seconds)
        if clock.monotonic() - known.last.at > gap or known.last.at - begun < lease_seconds:
            return False
        horizon = known.last.at - lease_seconds
        return not any(at > horizon and silence > gap for at, silence in known.gaps)

    def steady_for(self, connection: Connection, queue: str, lease_seconds: float) -> bool:
        """`steady` for the node that serves `queue`, which must have served it all that time."""
        node = connection.run(_home(connection.keys.queue(queue).prefix))
        home = self._homes.get(queue)
        if home is None or home[0] != node:
            # In the first moment nobody knows how long: a queue seen first is where it was before.
            home = self._homes[queue] = (node, 0.0 if home is None else clock.monotonic())
        return self.steady(node, lease_seconds, since=home[1])


def _stepped(before: Answer, after: Answer) -> bool:
    theirs, ours = after.time - before.time, after.at - before.at
    return abs(theirs - ours) > CLOCK_TOLERANCE_SECONDS


def _ask() -> Operation[dict[str, Answer | None]]:
    replies: dict[str, Any] = yield Everywhere("INFO", "server")
    at = clock.monotonic()
    times: dict[str, Any] = {}
    if not all("server_time_usec" in info for info in replies.values() if isinstance(info, dict)):
        times = yield Everywhere("TIME")  # some managed Redis shows a short INFO
        at = clock.monotonic()
    return {node: _answer(info, times.get(node), at) for node, info in replies.items()}


def _answer(info: Any, time: Any, at: float) -> Answer | None:
    if isinstance(info, CallboardError) or isinstance(time, CallboardError):
        return None
    seconds = int(info["server_time_usec"]) / 1e6 if time is None else time[0] + time[1] / 1e6
    return Answer(str(info.get("run_id", "")), seconds, at)


def _home(prefix: str) -> Operation[str]:
    node: str = yield NodeOf(prefix)
    return node
