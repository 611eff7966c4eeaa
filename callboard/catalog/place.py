"""Where something was declared, for errors that name both places."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# With its separator: `callboard_apps` beside it is a user of ours.
_HERE = str(Path(__file__).parent.parent) + os.sep


@dataclass(frozen=True, slots=True)
class Place:
    """A file and a line."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def place_of(function: Callable[..., Any]) -> Place:
    """Where a function is defined; `<unknown>:0` for one without Python code."""
    code = getattr(_unwrapped(function), "__code__", None)
    return Place("<unknown>", 0) if code is None else Place(code.co_filename, code.co_firstlineno)


def caller_place() -> Place:
    """Where the nearest code outside this library is that led here."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_HERE, "<")):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function
