"""What the knowledge application takes: its queues, task names, payloads, limits. No behaviour."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from callboard import Contract, Queue
from callboard_apps.clients.failures import Permanent

# One page needs seconds; what takes a minute hangs.
PARSING = Queue("parsing", soft_limit=55, hard_limit=60)
AI = Queue("ai", soft_limit=110, hard_limit=120)


class ParseLink(BaseModel):
    """Read one page of the web."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[
        str,
        Field(
            # No user:password@ in it: a payload is stored and shown.
            pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#@]+([/?#]\S*)?$",
            max_length=2048,
            description="The page's address, http or https, without user and password.",
            examples=["https://example.org/a"],
        ),
    ]
    max_bytes: int = Field(
        default=2 * 1024 * 1024,
        ge=1024,
        le=16 * 1024 * 1024,
        description="A page larger than this (unpacked) fails for good.",
    )
    timeout_seconds: float = Field(
        default=40, gt=0, le=50, description="How long fetching the page may take as a whole."
    )
    summary_sentences: int = Field(default=3, ge=1, le=10)


class Summarise(BaseModel):
    """Summarise a text by its own sentences."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(min_length=1, max_length=60_000)]
    title: Annotated[str, Field(max_length=500)] = ""
    max_sentences: int = Field(default=3, ge=1, le=10)
    max_characters: int = Field(default=600, ge=50, le=5000)


PARSE_LINK = Contract(
    "knowledge.parse_link",
    payload=ParseLink,
    queue=PARSING,
    # A site that says when to come back (Retry-After) is believed instead, up to five minutes.
    delays=(1, 5, 30),
    permanent=Permanent,
    memory_limit="1GiB",
    description=(
        "Fetch a page; answer its title, text, summary, language, date, author and links. A page that "
        "is missing, too large or no text fails for good; a busy or unreachable site is tried again."
    ),
)

SUMMARISE = Contract(
    "knowledge.summarise",
    payload=Summarise,
    queue=AI,
    description="Answer the sentences of a text that say most of it, and the language that it is in.",
)

CONTRACTS = (PARSE_LINK, SUMMARISE)
