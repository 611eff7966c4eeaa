"""What the scripts of one queue ought to do, in plain Python: the model of the stateful test.

Written from the state machine and the formula of fair queueing, not from the Lua: no caches, no flushes, no
dropped bookkeeping. Times are ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tests.support.queue_model import QueueModel
from tests.support.scripted_queue import TERMINAL, NewTask, Turn
from tests.support.task_model import Op, Task


def number(nonce: str) -> int:
    """A claim's place in its worker's order."""
    return int(nonce.partition(":")[0])


class Engine(QueueModel):
    """The queue. Each public method is a script, takes what it takes and returns what it ought to answer."""

    def submit(self, tasks: Iterable[NewTask], depth: int = 0) -> list[tuple[str, str]]:
        replies = []
        waiting = len(self.within("pending")) + len(self.within("queued"))
        for new in tasks:
            id, known = self._resolve(new.id, new.nonce)
            if known:
                replies.append((id, known))
            elif depth and waiting >= depth:
                replies.append((id, "full"))
            else:
                if id != new.id:
                    self.tasks[new.id].runs = self.last_runs[new.id] = int(id.rpartition("~")[2])
                task = Task(replace(new, id=id), self.now, max_attempts=new.max_attempts)
                task.expires = self.now + new.expires_in_ms if new.expires_in_ms else 0
                self.tasks[id] = task
                due = self.now + new.delay_ms if new.delay_ms else new.due_at
                if due > self.now:
                    task.state, task.reason, task.due = "pending", "delayed", due
                else:
                    self._enter(task)
                waiting += 1
                replies.append((id, task.state))
        return replies

    def _resolve(self, id: str, nonce: str) -> tuple[str, str]:
        base = self.tasks.get(id)
        if base is None:
            if id in self.tombs and nonce in ("", self.tombs[id]):
                return id, "deleted"
            last_id = f"{id}~{self.last_runs.get(id, 0)}"
            return self._answer_of(last_id, nonce) or (id, "")
        if nonce in ("", base.new.nonce):
            return id, base.state
        if base.runs and (answer := self._answer_of(f"{id}~{base.runs}", nonce)):
            return answer
        if base.state not in TERMINAL:
            return id, base.state
        run = max(base.runs, 1) + 1
        while f"{id}~{run}" in self.tasks:  # left over from an earlier base
            run += 1
        return f"{id}~{run}", ""

    def _answer_of(self, run: str, nonce: str) -> tuple[str, str] | None:
        """A resend of a later run, or one while it lives; None: there is room for another."""
        last = self.tasks.get(run)
        if last and (last.new.nonce == nonce or last.state not in TERMINAL):
            return run, last.state
        return (run, "deleted") if not last and nonce and self.tombs.get(run) == nonce else None

    def turn(self, worker: str, nonce: str, want: int, lease_ms: int, ops: Iterable[Op] = ()) -> Turn:
        answers = [self._settle(op) for op in ops]
        claimed = []
        if want:
            self.move_due(50)
            claimed = self._claim(worker, nonce, want, lease_ms)
        self._close()
        left = len(self.within("queued"))
        if want:
            self.told_due = self.now + self.next_due() if self.next_due() >= 0 else None
        return Turn(answers, claimed, self.next_due(), left, int(self.paused))

    def next_due(self) -> int:
        pending = self.within("pending")
        return max(0, pending[0].due - self.now) if pending else -1

    def _settle(self, op: Op) -> str:
        task = self.tasks.get(op.id)
        if task is None:
            return "already" if op.id in self.tombs else "lost"
        if task.state != "running" or task.token != op.token:
            word = task.settled.get(op.token)
            if word == "unknown" and task.token != op.token:
                word = None  # it leaves no entry in the history, so it is known while it is the last word
            return "already" if word else "lost"
        task.settled[op.token] = op.kind
        if op.progress:
            task.progress = op.progress
        self._log(task, op.first, op.lines)
        getattr(self, f"_on_{op.kind}")(task, op)
        return "ok"

    def _log(self, task: Task, first: int, lines: Sequence[str]) -> None:
        for number, text in enumerate(lines, first):
            if number > task.log_seq:
                task.log_seq = number
                task.log.append(text)

    def _tally(self, *, good: bool) -> None:
        self.finished_runs += 1
        self.failed_runs += not good

    def _follow(self, task: Task, followers: Sequence[bytes], mark: int | str | None = None) -> None:
        for index, body in enumerate(followers, 1):
            self.outbox[f"{task.id}:{mark or task.attempt}:{index}"] = body

    def _on_completed(self, task: Task, op: Op) -> None:
        self._end(task, "completed", "")
        self._follow(task, op.followers)
        self._tally(good=True)

    def _on_failed(self, task: Task, op: Op) -> None:
        task.attempts.append((task.attempt, "failed"))
        self._end(task, "failed", "permanent")
        self._follow(task, op.followers)
        self._tally(good=False)

    def _on_cancelled(self, task: Task, _: Op) -> None:
        task.attempts.append((task.attempt, "cancelled"))
        self._end(task, "cancelled", "cancelled")
        self._tally(good=False)

    def _on_retry(self, task: Task, op: Op) -> None:
        task.attempts.append((task.attempt, "failed"))
        task.options = b"options"
        self._follow(task, op.followers)
        self._wait(task, op.delay_ms, "backoff")

    def _on_snooze(self, task: Task, op: Op) -> None:
        self._follow(task, op.followers, task.token)
        self._interrupted(task, "snoozed")
        self._wait(task, op.delay_ms, "delayed")

    def _on_unknown(self, task: Task, _: Op) -> None:
        task.attempt -= 1
        if task.attempt == 0:
            task.wait = -1
        task.misses += 1
        self._wait(task, min(1000 * 2 ** (task.misses - 1), 60_000), "backoff")

    def _on_release(self, task: Task, _: Op) -> None:
        self._interrupted(task, "shutdown")
        if task.cancel:
            self._end_cancelled(task)
        else:
            self._come_back(task)

    def move_due(self, limit: int) -> int:
        due = [task for task in self.within("pending") if task.due <= self.now][:limit]
        for task in due:
            if 0 < task.expires <= self.now:
                self._end(task, "cancelled", "expired")
            else:
                self._enter(task)
        return len(due)

    def _claim(self, worker: str, nonce: str, want: int, lease_ms: int) -> list[tuple[str, str]]:
        memo = self.claims.get(worker)
        if memo and memo[0] == nonce:
            known = [self.tasks[id] for id in memo[1] if id in self.tasks]
            return [(t.id, t.token) for t in known if t.state == "running" and f".{nonce}-" in t.token]
        if memo and number(nonce) < number(memo[0]):
            return []  # it was held back on its way, and its worker has gone on
        if self.paused:
            return []
        claimed: list[tuple[str, str]] = []
        for task in self.within("queued")[:want]:
            if 0 < task.expires <= self.now:
                self._fair(task).leave(task)
                self._end(task, "cancelled", "expired")
                continue
            self._fair(task).serve(task)
            task.state, task.reason, task.worker = "running", "", worker
            task.attempt += 1
            task.started, task.lease = self.now, self.now + lease_ms
            task.progress_seq = task.log_seq = 0
            if task.wait < 0:
                task.wait = max(0, self.now - max(task.created, task.due))
            task.token = f"{task.attempt}.{nonce}-{len(claimed) + 1}"
            claimed.append((task.id, task.token))
        if claimed:
            self.claims[worker] = (nonce, [id for id, _ in claimed])
        return claimed

    def _held(self, id: str, token: str) -> Task | None:
        task = self.tasks.get(id)
        return task if task and task.state == "running" and task.token == token else None

    def renew(self, lease_ms: int, pairs: Iterable[tuple[str, str]]) -> list[str]:
        answers = []
        for id, token in pairs:
            task = self._held(id, token)
            if task:
                task.lease = self.now + lease_ms
            asked = "terminate" if task and task.terminate else "cancel" if task and task.cancel else "ok"
            answers.append(asked if task else "lost")
        return answers

    def note(self, op: Op) -> str:
        task = self._held(op.id, op.token)
        if not task:
            return "lost"
        if op.progress and op.progress_seq > task.progress_seq:
            task.progress, task.progress_seq = op.progress, op.progress_seq
        self._log(task, op.first, op.lines)
        return "ok"

    def cancel(self, id: str, *, terminate: bool) -> tuple[str, str]:
        task = self.tasks.get(id)
        if not task:
            return "missing", ""
        if task.state in TERMINAL:
            return "done" if task.state == "cancelled" else "conflict", task.state
        task.cancel = task.cancel or self.now
        if task.state == "running":
            task.terminate = task.terminate or int(terminate)
            return "asked", "running"
        if task.state == "queued":
            self._fair(task).leave(task)
        self._end(task, "cancelled", "cancelled")
        self._close()
        return "done", "cancelled"

    def retry(self, id: str, nonce: str, attempts: int) -> tuple[str, str]:
        task = self.tasks.get(id)
        if not task:
            return "missing", ""
        if task.replay == nonce:
            return "ok", task.state
        if task.state not in ("failed", "cancelled"):
            return "conflict", task.state
        task.replay = nonce
        task.replays += 1
        task.finished = task.cancel = task.terminate = task.losses = task.misses = task.expires = 0
        task.progress = task.options = b""
        if task.max_attempts >= 0:
            task.max_attempts = -1 if attempts < 0 else max(task.max_attempts, task.attempt + attempts)
        self._enter(task)
        return "ok", "queued"

    def delete(self, id: str) -> tuple[str, str]:
        task = self.tasks.get(id)
        if not task:
            return "ok" if id in self.tombs else "missing", ""
        if task.state not in TERMINAL:
            return "conflict", task.state
        del self.tasks[id]
        self.tombs[id] = task.new.nonce
        return "ok", task.state

    def reweigh(self, key: str, weight: float) -> int:
        live = [t for t in self.tasks.values() if t.new.key == key and t.state not in TERMINAL]
        for task in live:
            task.new = replace(task.new, weight=weight)
        for priority, fairness in enumerate(self.fair):
            queued = [t for t in self.within("queued") if t.new.key == key and t.new.priority == priority]
            if queued:
                fairness.reweigh(queued)
        return len(live)

    def drop_unreadable(self, id: str) -> None:
        """What is left of a queued task's record cannot be decoded; it is buried and deleted."""
        task = self.tasks.pop(id)
        self._fair(task).leave(task)
        self.tombs[id] = ""
        self._close()

    def purge(self, state: str, limit: int, before: int, skip: int) -> tuple[int, int, int]:
        """Dropped, looked at, and how many to skip in the next step."""
        looked = self.within(state)[skip : skip + limit]
        dropped = [task for task in looked if task.created <= before]
        for task in dropped:
            if state == "queued":
                self._fair(task).leave(task)
            del self.tasks[task.id]
        self._close()
        return len(dropped), len(looked), skip + len(looked) - len(dropped)

    def prune(self, state: str, age: int, keep: int, limit: int) -> tuple[int, int]:
        """Dropped and left."""
        tasks = self.within(state)
        excess = min(limit, max(0, len(tasks) - keep)) if keep >= 0 else 0
        old = [task for task in tasks if age >= 0 and task.finished <= self.now - age][:limit]
        dropped = max(tasks[:excess], old, key=len)
        for task in dropped:
            del self.tasks[task.id]
        return len(dropped), len(tasks) - len(dropped)

    def pause(self, *, paused: bool) -> int:
        changed = self.paused != paused
        self.paused = paused
        return int(changed)

    def promote(self) -> tuple[int, int]:
        moved = self.move_due(50)
        self._close()
        return moved, self.next_due()

    def rescue(self, triples: Iterable[tuple[str, str, str]], losses: int) -> list[str]:
        replies = []
        for id, token, verdict in triples:
            counts = verdict in ("strike", "attempt")
            blamed = verdict in ("strike", "present")
            task = self._held(id, token)
            if not task or task.lease > self.now:
                replies.append("")
                continue
            task.losses += blamed
            task.token = ""
            poisoned = blamed and task.losses >= losses
            spent = counts and 0 <= task.max_attempts <= task.attempt
            if counts or poisoned:
                task.attempts.append((task.attempt, "lost"))
            else:
                self._interrupted(task, "lease expired")
            if poisoned:
                self._end(task, "failed", "quarantined")
            elif task.cancel:
                self._end_cancelled(task)
            elif spent:
                self._end(task, "failed", "exhausted")
            else:
                self._come_back(task)
            replies.append(task.state)
        self._close()
        return replies

    def forget(self, worker: str) -> int:
        return int(self.claims.pop(worker, None) is not None)

    def delivered(self, members: Iterable[str]) -> int:
        return sum(self.outbox.pop(member, None) is not None for member in members)
