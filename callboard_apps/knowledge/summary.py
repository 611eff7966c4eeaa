"""An extractive summary: the sentences of a text that say most of what the others say.

Every sentence is a vector of its words, rare ones weighing more; its score is its likeness to all the
others, to the title, and its place. No model, no word list, no network: the same text gives the same
summary in any language, with or without spaces between words.
"""

from __future__ import annotations

import math
import re
from collections import Counter

_MOST_SENTENCES = 200
"""Likeness is measured pair by pair, so a book is judged by its first sentences."""
_ALIKE = 0.6
_GLANCE = 16
"""Characters around a full stop that tell whether it ends a sentence."""
_ENDS = re.compile(r"[.!?…]+[\"'»”’)\]]*(?=\s)|[。！？]+[」』”）]*")
_WORD = re.compile(r"[^\W_]+")
# Scripts that write without spaces: each pair of neighbours is counted as a word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:\w|\d{1,2}|\w\.\s?\w|Dra?|Mrs?|Ms|Mme|Mlle|Sra?|Prof|St|Jr|Nr|No|Abb|Fig|Vol|bzw|ca|vs|cf)\.$"
)


def summarise(text: str, *, sentences: int = 3, max_characters: int = 600, title: str = "") -> str:
    """At most `sentences` sentences of `text`, in its order, ≤ `max_characters` in all; "" of nothing.

    A first sentence that is longer than that by itself is cut, with an ellipsis.
    """
    candidates = _candidates(text)
    if not candidates:
        return _cut(" ".join(text.split()), max_characters)
    chosen: list[int] = []
    length = 0
    vectors = _vectors([*candidates, title])
    for index in _ranking(vectors[:-1], vectors[-1]):
        more = len(candidates[index]) + (1 if chosen else 0)
        if length + more > max_characters:
            continue
        if any(_likeness(vectors[index], vectors[other]) > _ALIKE for other in chosen):
            continue
        chosen.append(index)
        length += more
        if len(chosen) == sentences:
            break
    if not chosen:
        return _cut(candidates[0], max_characters)
    return " ".join(candidates[index] for index in sorted(chosen))


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in order; a line break ends one too (headings, list items)."""
    found: list[str] = []
    for line in text.splitlines():
        start = 0
        for end in _ENDS.finditer(line):
            here = end.end()
            # Only a glance to both sides: copies of the whole line would make a long one quadratic.
            following = line[here : here + _GLANCE].lstrip()[:1]
            if following.islower() or _ABBREVIATION.search(line[max(start, here - _GLANCE) : here]):
                continue
            found.append(line[start:here].strip())
            start = here
        found.append(line[start:].strip())
    return [sentence for sentence in found if sentence]


def words(text: str) -> list[str]:
    """The words of a text in lower case; of unspaced scripts each pair of neighbouring characters."""
    found: list[str] = []
    for run in _WORD.findall(text.casefold()):
        position = 0
        for unspaced in _UNSPACED.finditer(run):
            if unspaced.start() > position:
                found.append(run[position : unspaced.start()])
            piece = unspaced.group()
            found.extend(piece[i : i + 2] for i in range(max(1, len(piece) - 1)))
            position = unspaced.end()
        if position < len(run):
            found.append(run[position:])
    return found


def _candidates(text: str) -> list[str]:
    every = [sentence for sentence in split_sentences(text) if len(words(sentence)) >= 5]
    # What has no full stop is a heading or an item of a menu, unless the whole text is like that.
    ended = [sentence for sentence in every if _ENDS.search(sentence + " ")]
    return (ended or every)[:_MOST_SENTENCES]


def _vectors(sentences: list[str]) -> list[dict[str, float]]:
    counts = [Counter(words(sentence)) for sentence in sentences]
    spread = Counter(word for count in counts for word in count)
    # A word that every sentence has weighs nothing: that is what makes a list of stop words needless.
    weights = {word: math.log(len(sentences) / seen) for word, seen in spread.items()}
    vectors = []
    for count in counts:
        vector = {word: times * weights[word] for word, times in count.items()}
        norm = math.sqrt(sum(value * value for value in vector.values()))
        vectors.append({word: value / norm for word, value in vector.items()} if norm else {})
    return vectors


def _ranking(vectors: list[dict[str, float]], title: dict[str, float]) -> list[int]:
    totals = [0.0] * len(vectors)
    for i, one in enumerate(vectors):
        for j in range(i):
            shared = _likeness(one, vectors[j])
            totals[i] += shared
            totals[j] += shared
    highest = max(totals) or 1.0
    scores = [
        totals[i] / highest + 0.5 * _likeness(vector, title) + 0.4 / (1 + i)
        for i, vector in enumerate(vectors)
    ]
    return sorted(range(len(vectors)), key=lambda i: (-scores[i], i))


def _likeness(one: dict[str, float], other: dict[str, float]) -> float:
    if len(other) < len(one):
        one, other = other, one
    return sum(value * other.get(word, 0.0) for word, value in one.items())


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
