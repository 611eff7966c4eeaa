"""Judging the demo: did every task end as its page's entry in the manifest says, and was any lost?

Pure: works on the API's task resources alone, so that nothing but real outcomes can make it say well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callboard.cli.demo.site import SitePage

TERMINAL = frozenset({"completed", "failed", "cancelled"})
Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One page, its task as the API shows it at the end (None: unknown there), and a complaint."""

    page: SitePage
    task: Resource | None
    complaint: str | None
    """Why this is not how it should have ended; None when it is."""

    @property
    def lost(self) -> bool:
        """The platform accepted the task and has no outcome for it."""
        return self.task is None or self.task["state"] not in TERMINAL


@dataclass(frozen=True, slots=True)
class Verdict:
    """The whole demo. `killed`: workers that were killed and seen dead; `interrupted`: ids they ran then."""

    findings: Sequence[Finding]
    killed: int
    interrupted: frozenset[str] = frozenset()

    @property
    def lost(self) -> int:
        return sum(finding.lost for finding in self.findings)

    @property
    def rerun(self) -> int:
        """Interrupted tasks that were started again and reached an outcome."""
        return sum(
            not finding.lost
            and finding.task is not None
            and finding.task["id"] in self.interrupted
            # A rescue that costs no attempt is told among the interruptions.
            and (starts(finding.task) > 1 or bool(finding.task.get("interruptions")))
            for finding in self.findings
        )

    @property
    def complaints(self) -> list[str]:
        """Everything that did not go as it should; empty when the demo succeeded."""
        found = [f"{f.page.path}: {f.complaint}" for f in self.findings if f.complaint is not None]
        if not self.findings:
            found.append("No task was submitted.")
        if self.killed != 1:
            found.append(f"{self.killed} workers were killed instead of 1.")
        elif not self.interrupted:
            found.append("The killed worker ran no task, so its death proves nothing.")
        elif self.rerun < len(self.interrupted):
            found.append(f"Of {count(len(self.interrupted), 'interrupted task')} {self.rerun} ran again.")
        return found

    @property
    def headline(self) -> str:
        return f"{count(self.killed, 'worker')} killed, {count(self.lost, 'task')} lost"


def judge(page: SitePage, task: Resource | None) -> Finding:
    """Hold the last known resource of a page's task against what the manifest expects."""
    return Finding(page, task, _complaint(page, task))


def _complaint(page: SitePage, task: Resource | None) -> str | None:
    expect = page.expect
    if task is None:
        return "the platform does not know its task any more."
    if task["state"] != expect.state:
        return f"ended {task['state']} instead of {expect.state} ({explanation(task) or 'no explanation'})."
    if expect.reason is not None and task.get("reason") != expect.reason:
        return f"{task['state']} because of {task.get('reason')!r} instead of {expect.reason!r}."
    if expect.says is not None and expect.says not in explanation(task):
        return f"its explanation does not say {expect.says!r}: {explanation(task)!r}."
    if starts(task) < expect.attempts:
        return f"took {starts(task)} attempts, and its page asks for {expect.attempts}."
    if expect.state == "completed":
        result = task.get("result")
        if not isinstance(result, Mapping):
            return f"has no result: {result!r}."
        for name, value in expect.fields.items():
            if result.get(name) != value:
                return f"{name} is {result.get(name)!r} instead of {value!r}."
    return None


def starts(task: Resource) -> int:
    """How often the task's body was started."""
    return int(task.get("attempt") or 0)


def explanation(task: Resource) -> str:
    """Why the task failed, for a person; "" when it did not."""
    error = task.get("error")
    return str(error.get("message") or error.get("type") or "") if isinstance(error, Mapping) else ""


def gist(task: Resource) -> str:
    """What came out, in a line: the result's title, language, date and summary, or the explanation."""
    result = task.get("result")
    if task["state"] != "completed" or not isinstance(result, Mapping):
        return " ".join(explanation(task).split())
    told = ", ".join(str(result[name]) for name in ("language", "date") if result.get(name))
    return " ".join(f"{result.get('title')} ({told}): {result.get('summary')}".split())


def count(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
