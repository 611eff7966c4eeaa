"""TaskHandle: what `.submit()` returns. Look at a task, wait for it, stop it; from threads or a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from callboard import clock, control, inspector
from callboard.errors import StoreUnavailable, TaskFailed, TaskNotFound, WaitTimeout
from callboard.records import ids
from callboard.records.log import LogLine
from callboard.records.record import TaskRecord
from callboard.records.state import State
from callboard.storage import default
from callboard.storage.bell import AsyncBell, Bell
from callboard.storage.connection import AsyncConnection, Connection
from callboard.storage.keys import Keys

#: A message that a task has ended can be lost in a failover; the record is looked at anew this often.
_LOOK_AGAIN_SECONDS = 5.0


class TaskHandle:
    """One task, by id. Methods block; those with an `a` in front are awaited instead.

    Raises TaskNotFound for what cannot be a task id; whether the task exists shows in use. With `queue`, from
    the answer to a submit, the id is not looked into again.
    """

    def __init__(
        self, task_id: str, connection: Connection | None = None, *, queue: str | None = None
    ) -> None:
        self.id = task_id
        self.queue, self._local = (queue, task_id[len(queue) + 1 :]) if queue else ids.split(task_id)
        self._connection = connection

    def __repr__(self) -> str:
        return f"TaskHandle({self.id!r})"

    def record(self) -> TaskRecord:
        """The whole record. Raises TaskNotFound."""
        return _known(self._sync().run(inspector.get(self._keys, self.id)), self.id)

    async def arecord(self) -> TaskRecord:
        """See `record`."""
        return _known(await self._loop().run(inspector.get(self._keys, self.id)), self.id)

    @property
    def state(self) -> State:
        """The state now."""
        return self.record().state

    async def astate(self) -> State:
        """See `state`."""
        return (await self.arecord()).state

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state.terminal

    async def aready(self) -> bool:
        """See `ready`."""
        return (await self.astate()).terminal

    def progress(self) -> dict[str, Any] | None:
        """The last progress told: {"current", "total", "percent", "message"}, None before any."""
        told = self.record().progress
        return None if told is None else dict(told)

    async def aprogress(self) -> dict[str, Any] | None:
        """See `progress`."""
        told = (await self.arecord()).progress
        return None if told is None else dict(told)

    def logs(self, after: int = 0) -> list[LogLine]:
        """The log's lines with `seq` above `after`."""
        return list(self._sync().run(inspector.logs(self._keys, self.id, after)).items)

    async def alogs(self, after: int = 0) -> list[LogLine]:
        """See `logs`."""
        return list((await self._loop().run(inspector.logs(self._keys, self.id, after))).items)

    def cancel(self, *, terminate: bool = False) -> bool:
        """Cancel the task; True when it is cancelled, False when it runs and was asked to stop.

        `terminate` kills a running body. Raises TaskNotFound, and IllegalTransition when it has ended.
        """
        return self._sync().run(control.cancel(self._keys, self.id, terminate=terminate)).done

    async def acancel(self, *, terminate: bool = False) -> bool:
        """See `cancel`."""
        return (await self._loop().run(control.cancel(self._keys, self.id, terminate=terminate))).done

    def wait(self, timeout: float | None = None) -> TaskRecord:
        """Block until the task has ended, however it did; its record. `timeout` in seconds.

        An outage of Redis is waited out. Raises WaitTimeout, TaskNotFound.
        """
        deadline = _Deadline(self.id, timeout)
        client = self._sync().client
        while True:
            try:
                with Bell(client, self._channel) as bell:
                    while not (record := self.record()).state.terminal:
                        bell.wait(deadline.slice())
                    return record
            except StoreUnavailable as error:
                deadline.after(error)
                clock.sleep(min(0.5, deadline.slice()))

    async def await_end(self, timeout: float | None = None) -> TaskRecord:
        """See `wait`. `await handle` is the same without a time-out."""
        deadline = _Deadline(self.id, timeout)
        connection = self._loop()
        while True:
            try:
                async with AsyncBell(connection.client, self._channel) as bell:
                    while not (record := await self.arecord()).state.terminal:
                        await bell.wait(deadline.slice())
                    return record
            except StoreUnavailable as error:
                deadline.after(error)
                await asyncio.sleep(min(0.5, deadline.slice()))

    def result(self, timeout: float | None = None) -> Any:
        """Block until the task has ended; what its body returned (as JSON gives it back).

        Raises WaitTimeout, TaskNotFound, and TaskFailed with the remote traceback when it failed or was
        cancelled.
        """
        return _result(self.wait(timeout))

    async def aresult(self, timeout: float | None = None) -> Any:
        """See `result`."""
        return _result(await self.await_end(timeout))

    def __await__(self) -> Any:
        return self.await_end().__await__()

    @property
    def _keys(self) -> Keys:
        return (self._connection or default.connection()).keys

    @property
    def _channel(self) -> str:
        return self._keys.queue(self.queue).done(self._local)

    def _sync(self) -> Connection:
        return self._connection or default.connection()

    def _loop(self) -> AsyncConnection:
        return default.async_connection(self._connection)


class _Deadline:
    def __init__(self, task_id: str, timeout: float | None) -> None:
        self.task_id = task_id
        self.timeout = timeout
        self.at = None if timeout is None else clock.monotonic() + timeout
        self.error: Exception | None = None

    def after(self, error: Exception) -> None:
        self.error = error

    def slice(self) -> float:
        """How long to wait now, in seconds. Raises WaitTimeout when nothing is left."""
        if self.at is None:
            return _LOOK_AGAIN_SECONDS
        left = self.at - clock.monotonic()
        if left <= 0:
            raise WaitTimeout(
                f"Task {self.task_id!r} has not ended within {self.timeout} s; it goes on."
            ) from self.error
        return min(left, _LOOK_AGAIN_SECONDS)


def _known(record: TaskRecord | None, task_id: str) -> TaskRecord:
    if record is None:
        raise TaskNotFound(task_id)
    return record


def _result(record: TaskRecord) -> Any:
    if record.state is State.COMPLETED:
        return record.result
    error = record.error or {}
    cause = f"{error.get('type')}: {error.get('message')}" if error else record.reason or ""
    raise TaskFailed(
        f"Task {record.id!r} ({record.name}) {record.state}: {cause}",
        record,
        traceback=error.get("traceback") or None,
    )


def handle(task_id: str) -> TaskHandle:
    """The handle of a task by its id, on the process's connection."""
    found = _finder(task_id) if _finder is not None else None
    return TaskHandle(task_id) if found is None else found


Finder = Callable[[str], TaskHandle | None]
_finder: Finder | None = None


@contextmanager
def found_by(finder: Finder) -> Iterator[None]:
    """Let `handle` ask `finder` first meanwhile; for `callboard.testing`."""
    global _finder  # noqa: PLW0603 - tests look from threads too, so it is the process's
    former, _finder = _finder, finder
    try:
        yield
    finally:
        _finder = former
