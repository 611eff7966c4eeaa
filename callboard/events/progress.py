"""Progress: how far a body is, as it is shown in records and events."""

from __future__ import annotations

import json
from typing import Any


def shown(blob: bytes | str) -> dict[str, Any] | None:
    """`{current, total, percent, message}` of what a body has told; None for nothing, or for no such JSON.

    `percent` is 0 to 100, None without a total.
    """
    try:
        told = json.loads(blob) if blob else None
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    current, total = told.get("current"), told.get("total")
    percent = None
    if isinstance(current, int | float) and isinstance(total, int | float) and total > 0:
        percent = round(min(100.0, max(0.0, 100 * current / total)), 1)
    return {"current": current, "total": total, "percent": percent, "message": told.get("message")}
