"""The knowledge application's tasks. Imported by workers alone."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from callboard import Retry, progress, settings, task
from callboard_apps.clients.failures import Temporary
from callboard_apps.clients.http import Page, Policy, fetch
from callboard_apps.knowledge.contracts import PARSE_LINK, SUMMARISE, ParseLink, Summarise
from callboard_apps.knowledge.language import detect
from callboard_apps.knowledge.summary import summarise as summary_of

LONGEST_RETRY_AFTER_MS = 5 * 60 * 1000
"""A site that asks for more patience is asked again after this all the same: a typo of theirs
must not put a task to sleep for a year."""

_FETCHED = 70
"""Percent of the progress bar: fetching takes nearly all of the time."""

logger = logging.getLogger(__name__)


@task(PARSE_LINK)
def parse_link(link: ParseLink) -> dict[str, Any]:
    """Fetch a page and say what is on it.

    Returns {url, title, summary, language, date, author, text, text_complete, links: [{url, text}],
    links_total, content_type, bytes, redirects}.
    """
    # Not at the top: trafilatura brings numpy, which starts threads when it is imported, and a worker
    # can only preload what starts none before it forks.
    from callboard_apps.knowledge import article

    page = _fetched(link)
    logger.info("Fetched %s: %s, %d bytes.", page.url, page.content_type, len(page.body))
    progress(_FETCHED, 100, "extracting")
    found = article.read(page)
    logger.info(
        "Read %r: %d characters, %d links, language %s, date %s.",
        found.title,
        len(found.text),
        found.links_total,
        found.language,
        found.date,
    )
    progress(90, 100, "summarising")
    summary = summary_of(found.text, sentences=link.summary_sentences, title=found.title)
    progress(100, 100, "done")
    return {
        "url": page.url,
        "title": found.title,
        "summary": summary,
        "language": found.language,
        "date": found.date,
        "author": found.author,
        "text": found.text,
        "text_complete": found.text_complete,
        "links": [asdict(each) for each in found.links],
        "links_total": found.links_total,
        "content_type": page.content_type,
        "bytes": len(page.body),
        "redirects": list(page.redirects),
    }


@task(SUMMARISE)
def summarise(request: Summarise) -> dict[str, Any]:
    """Summarise a text by its own sentences. Returns {summary, language}."""
    return {
        "summary": summary_of(
            request.text,
            sentences=request.max_sentences,
            max_characters=request.max_characters,
            title=request.title,
        ),
        "language": detect(request.text),
    }


def _fetched(link: ParseLink) -> Page:
    policy = Policy(
        total_seconds=link.timeout_seconds,
        max_bytes=link.max_bytes,
        private_addresses=settings.load().fetch_private_addresses,
    )
    progress(0, 100, "connecting")
    try:
        return fetch(link.url, policy, _tell_arrival)
    except Temporary as failure:
        if failure.retry_after_ms is None:
            raise
        wait_ms = min(failure.retry_after_ms, LONGEST_RETRY_AFTER_MS)
        logger.warning("%s Trying again in %.1f s, as asked.", failure, wait_ms / 1000)
        raise Retry(wait_ms / 1000, message=str(failure)) from failure


def _tell_arrival(received: int, announced: int | None) -> None:
    if announced:
        progress(_FETCHED * min(1.0, received / announced), 100, "fetching")
    else:
        progress(0, 100, f"fetching, {received // 1024} KiB so far")
