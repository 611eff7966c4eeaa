"""How a stop reaches into a body that runs in a thread, and into nothing else that the thread does."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from callboard import clock

_NOTHING = object()
# Without declared argument types: None is then the NULL that takes a pending exception back.
_set_async_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc


class Guard:
    """Delivers at most one exception into one thread, and only while the gate is open.

    The gate is a permit in a deque, which the two threads can only take one after the other: whoever
    takes it decides. The body's thread takes it back before it leaves the body (or enters code of ours,
    such as the listener), so no exception can be raised there; there is no lock that an exception could
    leave held. If the other side was first, the exception is on its way and arrives before the body's
    thread gets past `_shut`.
    """

    __slots__ = ("_canceller", "_ident", "_permit", "_raised", "_wanted")

    def __init__(self, ident: int | None = None) -> None:
        self._ident = threading.get_ident() if ident is None else ident
        self._permit: deque[None] = deque()
        self._wanted: type[BaseException] | None = None
        self._raised = False
        self._canceller: Callable[[], object] | None = None

    def deliver(self, exception: type[BaseException]) -> None:
        """From any other thread: raise `exception` in the body once the gate is open. The first counts."""
        if self._wanted is not None:
            return
        self._wanted = exception
        canceller = self._canceller
        if canceller is not None:
            canceller()
            return
        try:
            self._permit.pop()
        except IndexError:
            return  # The gate is shut; who opens it looks at what is wanted.
        _set_async_exception(ctypes.c_ulong(self._ident), ctypes.py_object(exception))
        self._raised = True

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`function(*args, **kwargs)` with the gate open."""
        value: Any = _NOTHING
        try:
            try:
                self._open()
                value = function(*args, **kwargs)
            finally:
                self._shut_for_good()
        except BaseException:
            # The exception may have struck inside the line above: shut again, now undisturbed.
            self._shut_for_good()
            if value is _NOTHING:
                raise
        return value

    def cancel_with(self, canceller: Callable[[], object]) -> None:
        """From here on a stop calls `canceller` (from any thread) instead of raising."""
        self._canceller = canceller
        if self._wanted is not None:
            canceller()

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Keep the gate shut for a stretch of our own code that the body called."""
        if threading.get_ident() != self._ident:
            yield
            return
        if not self._shut():
            # Nested, or the exception is on its way: let it arrive here rather than in our code.
            self._await_raise()
            yield
            return
        try:
            yield
        finally:
            self._open()

    def _open(self) -> None:
        self._permit.append(None)
        if self._wanted is not None and self._shut():
            self._raised = True
            raise self._wanted

    def _shut(self) -> bool:
        """Take the permit back; False if it was not there (used up, or the gate was shut already)."""
        try:
            self._permit.pop()
        except IndexError:
            return False
        return True

    def _shut_for_good(self) -> None:
        if self._shut() or self._wanted is None:
            return
        self._await_raise()
        if self._raised:
            _set_async_exception(ctypes.c_ulong(self._ident), None)

    def _await_raise(self) -> None:
        """Between taking the permit and raising, the other thread has a few instructions to go."""
        for _ in range(1000):
            if self._raised or self._wanted is None:
                return
            clock.sleep(0.0001)
