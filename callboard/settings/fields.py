"""How a setting is declared."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic.config import JsonDict


def setting(default: Any, help: str, expected: str, *, secret: bool = False, **limits: Any) -> Any:
    """A field; `expected` says what a good value is, for the page and for whoever gave a bad one."""
    extra: JsonDict = {"expected": expected, "secret": secret}
    return Field(default, description=help, json_schema_extra=extra, repr=not secret, **limits)


def count(default: int | None, help: str, low: int = 1, high: int | None = None) -> Any:
    """A whole number."""
    return setting(default, help, f"a whole number, {_range(low, high)}", ge=low, le=high)


def seconds(default: float | None, help: str, low: float = 0, high: float | None = None) -> Any:
    """A number of seconds."""
    return setting(
        default, help, f"a number of seconds, {_range(low, high)}", ge=low, le=high, allow_inf_nan=False
    )


def _range(low: float, high: float | None) -> str:
    return f"{low:,} or more" if high is None else f"{low:,} to {high:,}"
