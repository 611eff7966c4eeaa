"""Acme's tasks, for a worker image of its own."""

from __future__ import annotations

import segno

from callboard import task


@task(queue="labels", name="acme.label")
def label(text: str, scale: int = 4) -> str:
    """Draw a parcel's label: the QR code of a text, as SVG."""
    return segno.make(text).svg_inline(scale=scale)
