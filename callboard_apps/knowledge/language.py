"""Which language a text is in, judged by the text and by what its page says of itself."""

from __future__ import annotations

from functools import cache
from typing import Any

_ENOUGH = 60
"""Characters; below that the judgement of a short text is a guess."""
_SAMPLE = 4000
_SURE = 0.8


def detect(text: str, declared: str | None = None) -> str | None:
    """The ISO 639-1 code of `text`, or None when nothing tells.

    The text decides when it is long enough and clear, because templates declare `en` for everything;
    else `declared` (an HTML `lang`, `pt-BR` or `de`) does.
    """
    told = primary(declared)
    sample = text.strip()[:_SAMPLE]
    if len(sample) < _ENOUGH and told is not None:
        return told
    if not sample:
        return None
    found, confidence = _identifier().classify(sample)
    if confidence >= _SURE or told is None:
        return str(found) if confidence >= 0.5 else None
    return told


def primary(tag: str | None) -> str | None:
    """The language of a tag: `pt` of `pt-BR`; None for what is no tag of two or three letters."""
    subtag = (tag or "").strip().replace("_", "-").partition("-")[0].lower()
    return subtag if subtag.isascii() and subtag.isalpha() and 2 <= len(subtag) <= 3 else None


@cache
def _identifier() -> Any:
    # Half a second and 60 MiB: on first use in each child, never at import.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
