"""The pages of the documentation, taken apart: their blocks, words in backticks, links and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]

_READER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A block of code. `language` is "" for an indented one; `line` is where its text begins, from 1."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


class Page:
    """One Markdown file, by its path below ROOT."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = ROOT / name
        self.text = self.path.read_text(encoding="utf-8")

    def __repr__(self) -> str:
        return f"Page({self.name!r})"

    @cached_property
    def _tokens(self) -> list[Token]:
        return _READER.parse(self.text)

    @cached_property
    def _spans(self) -> list[Token]:
        return [child for token in self._tokens for child in token.children or ()]

    @cached_property
    def blocks(self) -> list[Block]:
        """Fenced and indented blocks, in order."""
        found = []
        for token in self._tokens:
            if token.type in ("fence", "code_block") and token.map is not None:
                line = token.map[0] + (2 if token.type == "fence" else 1)
                found.append(Block(self.name, line, token.info.strip(), token.content))
        return found

    @cached_property
    def words(self) -> list[str]:
        """What stands in backticks, in order; a line break inside is a space."""
        return [span.content for span in self._spans if span.type == "code_inline"]

    @cached_property
    def links(self) -> list[str]:
        """The targets of its links."""
        return [str(span.attrs["href"]) for span in self._spans if span.type == "link_open"]

    @cached_property
    def anchors(self) -> set[str]:
        """What a `#…` of a link to this page may name."""
        return {
            _slug(token.content)
            for before, token in zip(self._tokens, self._tokens[1:], strict=False)
            if before.type == "heading_open"
        }

    def section(self, title: str) -> str:
        """The text below a heading, up to the next one of its level or above."""
        lines = self.text.splitlines(keepends=True)
        start: int | None = None
        depth = ""
        for mark, heading in zip(self._tokens, self._tokens[1:], strict=False):
            if mark.type != "heading_open" or mark.map is None:
                continue
            if start is not None and mark.tag <= depth:
                return "".join(lines[start : mark.map[0]])
            if start is None and heading.content == title:
                start, depth = mark.map[1], mark.tag
        assert start is not None, f"{self.name} has no section {title!r}"
        return "".join(lines[start:])


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the tables in `text`, without their heads."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| |"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def _slug(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


def _names() -> list[str]:
    found = [ROOT / name for name in ("README", "AGENTS", "CONTRIBUTING", "SECURITY", "CHANGELOG")]
    paths = [path.with_suffix(".md") for path in found]
    for pattern in (
        "docs/**/*.md",
        "examples/**/*.md",
        "services/*/README.md",
        "bench/*.md",
        "k8s/*.md",
        "deploy/helm/callboard/*.md",
        "callboard_apps/*/README.md",
    ):
        paths += sorted(ROOT.glob(pattern))
    return [path.relative_to(ROOT).as_posix() for path in paths]


NAMES = _names()
PAGES = {name: Page(name) for name in NAMES}
