"""What a page says: title, text, links, language, date, author, taken out of its markup.

The main text, its date and author come from trafilatura; links are read from the whole page.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from urllib.parse import urldefrag, urljoin

import trafilatura
from lxml.html import HtmlElement
from trafilatura.utils import decode_file, load_html

from callboard_apps.clients.failures import Unreadable
from callboard_apps.clients.http import Page
from callboard_apps.knowledge.language import detect

MOST_TEXT = 100_000
"""Characters of text that are kept; with 100 links the result stays below 1 MiB as JSON."""
MOST_LINKS = 100
_MOST_TITLE = 500
_MOST_ADDRESS = 2000
_MOST_LINK_TEXT = 200
_META_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", re.IGNORECASE)
_HTML_ENCODINGS = {"iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254"}
"""Browsers read these names as their larger Windows cousins, so that is what pages mean by them."""
_NOT_FOR_PAGES = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7"}


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the page: its absolute address without fragment, and its words."""

    url: str
    text: str


@dataclass(frozen=True, slots=True)
class Article:
    """A page as a reader sees it. `date` is `YYYY-MM-DD`, `language` ISO 639-1; None: not told."""

    title: str
    text: str
    text_complete: bool
    language: str | None
    date: str | None
    author: str | None
    links: tuple[Link, ...]
    links_total: int


def read(page: Page) -> Article:
    """The article of a page, of HTML or plain text.

    Raises Unreadable when there is nothing to read, neither a title nor text.
    """
    source = decode(page)
    return _of_text(source) if page.content_type == "text/plain" else _of_html(source, page.url)


def decode(page: Page) -> str:
    """The page's characters: by its byte order mark, header, meta element, or a guess, in this order."""
    for bom, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if page.body.startswith(bom):
            return page.body.decode(name, "replace").lstrip("\ufeff")
    meta = _META_CHARSET.search(page.body[:1024]) if page.content_type != "text/plain" else None
    for label in (page.charset, meta.group(1).decode("ascii") if meta else None):
        codec = _codec(label)
        if codec is not None:
            return page.body.decode(codec, "replace")
    return decode_file(page.body)


def _codec(label: str | None) -> str | None:
    try:
        b"a".decode(label or "", "replace")  # refuses Python's codecs that are no character sets (zip)
        name = codecs.lookup(label or "").name
    except (LookupError, UnicodeError):
        return None
    if name in _NOT_FOR_PAGES:
        return None
    return _HTML_ENCODINGS.get(name, name)


def _of_text(source: str) -> Article:
    text = source.strip()
    if not text:
        raise Unreadable("The page is empty.")
    title = next(line.strip("#=* \t") for line in text.splitlines() if line.strip())
    return Article(
        title=title[:_MOST_TITLE],
        text=text[:MOST_TEXT],
        text_complete=len(text) <= MOST_TEXT,
        language=detect(text),
        date=None,
        author=None,
        links=(),
        links_total=0,
    )


def _of_html(source: str, url: str) -> Article:
    tree = load_html(source)
    if tree is None:
        raise Unreadable(f"No page can be made of what {url} sent: it is empty or not HTML.")
    declared = tree.get("lang") or tree.get("{http://www.w3.org/XML/1998/namespace}lang")
    links = _links(tree, url)
    heading = _heading(tree)
    document = trafilatura.bare_extraction(
        source,
        url=url,
        include_comments=False,
        with_metadata=True,
        # Guessing a date out of any number in the text gives a wrong one more often than a right one.
        date_extraction_params={"original_date": True, "extensive_search": False},
    )
    text = (getattr(document, "text", None) or "").strip()
    title = " ".join((getattr(document, "title", None) or heading).split())
    if not text and not title:
        raise Unreadable(f"Nothing to read at {url}: no title and no text in its HTML.")
    return Article(
        title=title[:_MOST_TITLE],
        text=text[:MOST_TEXT],
        text_complete=len(text) <= MOST_TEXT,
        language=detect(text or title, declared),
        date=getattr(document, "date", None),
        author=getattr(document, "author", None),
        links=tuple(links[:MOST_LINKS]),
        links_total=len(links),
    )


def _heading(tree: HtmlElement) -> str:
    return " ".join(str(tree.findtext(".//title") or tree.findtext(".//h1") or "").split())


def _links(tree: HtmlElement, url: str) -> list[Link]:
    base = tree.find(".//base[@href]")
    start = (_joined(url, base.get("href")) if base is not None else None) or url
    found: dict[str, str] = {}
    for anchor in tree.iterfind(".//a[@href]"):
        address = _joined(start, anchor.get("href"))
        if address is None or not address.startswith(("http://", "https://")) or len(address) > _MOST_ADDRESS:
            continue
        words = " ".join(anchor.text_content().split())[:_MOST_LINK_TEXT]
        # The first mention of an address keeps its place; its first words, if any, are its text.
        found[address] = found.get(address) or words
    return [Link(address, words) for address, words in found.items()]


def _joined(base: str, reference: str) -> str | None:
    try:
        return urldefrag(urljoin(base, reference.strip())).url
    except ValueError:
        return None
