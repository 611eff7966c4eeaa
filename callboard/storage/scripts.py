"""Lua scripts: loading, joining their fragments, hashing.

A script lives beside its owner in a `lua` folder and names the fragments that it uses in its first line,
`-- uses: keys, time, record`. They come before it; those of a line `-- here: record` come in its place, for
what few calls need. Fragments stand in the broker's folder.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

_USES = re.compile(r"^-- uses: ([a-z_, ]+)$")
_FUNCTION = re.compile(
    r"^local function (\w+)\((?:.*\bend(?: --.*)?\n|.*\n(?:[ \t].*\n|\n)*end\n)", re.MULTILINE
)
_WORD = re.compile(r"\w+")
_INLINE = re.compile(r"^local ([A-Z_, ]+) = ([\d, ]+|'\\\d+') -- inline.*$", re.MULTILINE)
_HERE = re.compile(r"^-- here: ([a-z_, ]+)$", re.MULTILINE)
_FRAGMENTS = "callboard.broker"


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script ready for EVALSHA. `name` is its file's name without the suffix.

    `flags`: its first argument is the connection's "FULL:KEEP" (see the fragment `event`).
    """

    name: str
    source: str = field(repr=False)
    sha: str = field(repr=False)
    flags: bool = False


@cache
def _text(package: str, name: str) -> str:
    return files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def join(package: str, name: str, replacing: Mapping[str, str] | None = None) -> Script:
    """The script `name` of `package` with its fragments.

    `replacing` swaps fragments for other text by name; the property tests bring a clock of their own.

    Raises:
        FileNotFoundError: no such script or fragment.
    """
    text = _text(package, name)
    first, _, _ = text.partition("\n")
    uses = _USES.match(first)
    fragments = uses.group(1).split(", ") if uses else []

    def texts(names: str) -> str:
        return "\n".join((replacing or {}).get(one) or _text(_FRAGMENTS, one) for one in names.split(", "))

    text = _HERE.sub(lambda found: texts(found[1]), text)
    source = _inline(shaken(f"{texts(uses[1])}\n{text}" if uses else text))
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, sha, flags="event" in fragments)


def shaken(source: str) -> str:
    """Without the top-level functions that nothing calls, and those that only they called.

    Each call of a script makes all of its closures anew, and many of a fragment's are of no use to it.
    """
    while True:
        # Counted in one pass: a search for each name was a sixth of a worker's imports.
        words = Counter(_WORD.findall(source))
        unused = [found for found in _FUNCTION.finditer(source) if words[found.group(1)] == 1]
        if not unused:
            return source
        for found in reversed(unused):
            source = source[: found.start()] + source[found.end() :]


def _inline(source: str) -> str:
    """Put numbers in the place of constants whose declaration is marked `-- inline`.

    Lua 5.1 finds each variable that a closure captures by walking a list of them all, for every call of the
    script; forty constants made that the largest part of a turn.
    """
    constants: dict[str, str] = {}
    for names, values in _INLINE.findall(source):
        constants.update(zip(names.split(", "), values.split(", "), strict=True))
    if not constants:
        return source
    return _WORD.sub(lambda match: constants.get(match[0], match[0]), _INLINE.sub("", source))


@cache
def script(package: str, name: str) -> Script:
    """The script `name` from `package`'s `lua` folder, joined once per process."""
    return join(package, name)
