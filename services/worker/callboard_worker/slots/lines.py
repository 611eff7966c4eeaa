"""Lines of a task's log: cut to length, counted against an attempt's budget, split out of byte streams."""

from __future__ import annotations

from collections.abc import Iterator

from callboard_worker.slots.slot import LINE_LIMIT_BYTES, LOG_LIMIT_BYTES, LOG_LIMIT_LINES

_CUT_MARK = "…"


def clip(text: str, limit_bytes: int) -> str:
    """`text` with at most `limit_bytes` bytes of UTF-8; what is over is cut and marked with an ellipsis.

    Lone surrogates, which no wire can carry, become question marks.
    """
    if len(text) * 4 <= limit_bytes and text.isascii():
        return text
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    kept = encoded[: limit_bytes - len(_CUT_MARK.encode())]
    return kept.decode("utf-8", "ignore") + _CUT_MARK


def clip_start(text: str, limit_bytes: int) -> str:
    """The same, but the end is kept: of a traceback the last lines say what happened."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    kept = encoded[len(encoded) - limit_bytes + len(_CUT_MARK.encode()) + 1 :]
    return f"{_CUT_MARK}\n" + kept.decode("utf-8", "ignore")


class LogBudget:
    """What one attempt may still write: 1,000 lines and 256 KiB; the rest is counted and dropped."""

    __slots__ = ("bytes_left", "dropped", "lines_left")

    def __init__(self, lines: int = LOG_LIMIT_LINES, size_bytes: int = LOG_LIMIT_BYTES) -> None:
        self.lines_left = lines
        self.bytes_left = size_bytes
        self.dropped = 0

    @property
    def spent(self) -> bool:
        """Nothing more will be let through."""
        return self.lines_left <= 0 or self.bytes_left <= 0

    def admit(self, text: str) -> str | None:
        """The line as it may be written (cut to 8 KiB), or None if it is dropped."""
        if self.lines_left <= 0 or self.bytes_left <= 0:
            self.dropped += 1
            return None
        text = clip(text, LINE_LIMIT_BYTES)
        self.lines_left -= 1
        self.bytes_left -= len(text)
        return text

    def notice(self) -> str | None:
        """The line that tells of dropped ones, once."""
        if not self.dropped:
            return None
        dropped, self.dropped = self.dropped, 0
        return f"{dropped} more log lines were dropped: a task keeps {LOG_LIMIT_LINES} lines and 256 KiB."


class LineSplitter:
    """Cuts a stream of bytes into lines. A line over 8 KiB is cut there and its rest skipped."""

    __slots__ = ("_partial", "_skipping")

    def __init__(self) -> None:
        self._partial = b""
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that `data` completes, without their line ends."""
        *complete, rest = (self._partial + data).split(b"\n")
        self._partial = b""
        for raw in complete:
            if self._skipping:
                self._skipping = False
            else:
                yield _text(raw)
        if self._skipping:
            return
        if len(rest) > LINE_LIMIT_BYTES:
            self._skipping = True
            yield _text(rest)
        else:
            self._partial = rest

    def flush(self) -> Iterator[str]:
        """The line that was begun and never ended, if any."""
        rest, self._partial, self._skipping = self._partial, b"", False
        if rest:
            yield _text(rest)

    def skip(self, data: bytes) -> int:
        """Forget `data`, keeping only where its last line stands; the number of lines forgotten."""
        count = data.count(b"\n")
        if count:
            self._partial = b""
            self._skipping = False
        self._skipping = self._skipping or not data.endswith(b"\n")
        return count


def _text(raw: bytes) -> str:
    return clip(raw.removesuffix(b"\r").decode("utf-8", "replace"), LINE_LIMIT_BYTES)
