"""Log lines on standard error: text for people, JSON for programs; fields bound around a stretch of code.

A program that only submits tasks is never touched: only our own entry points call `configure`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TextIO

from callboard import clock

_fields: ContextVar[Mapping[str, Any]] = ContextVar("callboard_log_fields", default=MappingProxyType({}))


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add fields (`task_id=…`) to every line logged inside, in this thread or coroutine."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def bound_fields() -> Mapping[str, Any]:
    """The fields in force here."""
    return _fields.get()


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, logger, message, the bound fields, a traceback as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": clock.rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        # A bound field never replaces one of the line's own.
        line = {**_fields.get(), **line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`09:30:00.123 INFO  callboard.worker: message [task_id=…]`, in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        at = clock.rfc3339(int(record.created * 1000))[11:23]
        text = f"{at} {record.levelname:<7} {record.name}: {record.getMessage()}"
        fields = _fields.get()
        if fields:
            text += f" [{' '.join(f'{name}={value}' for name, value in fields.items())}]"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + record.stack_info
        return text


def configure(format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (standard error), replacing earlier handlers.

    `format` and `level` are the settings `log_format` and `log_level`.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    for former in list(root.handlers):
        root.removeHandler(former)
        former.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
