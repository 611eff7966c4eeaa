"""A proxy on loopback between a client and Redis, which loses, holds back, repeats and cuts on demand.

It reads the client's commands, so that a rule can pick one: a script by its hash, a command by its name.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from callboard.storage.scripts import Script
from tests.support.ports import free_port
from tests.support.waiting import wait_until

Words = Sequence[bytes]
Match = Callable[[Words], bool]
Deed = Literal["drop-reply", "drop-request", "deliver-late"]

_CHUNK = 1 << 16
_CONNECT_SECONDS = 5.0


def runs(*scripts: Script) -> Match:
    """Matches a call of one of these scripts, by hash or by source."""
    shas = {script.sha.encode() for script in scripts}
    sources = {script.source.encode() for script in scripts}

    def match(words: Words) -> bool:
        name = words[0].upper()
        return (name == b"EVALSHA" and words[1] in shas) or (name == b"EVAL" and words[1] in sources)

    return match


def command(*names: str) -> Match:
    """Matches plain commands by their names."""
    wanted = {name.upper().encode() for name in names}
    return lambda words: words[0].upper() in wanted


@dataclass(slots=True)
class Rule:
    """What happens to commands that `match`: of the first `times` (None: of all), to every `every`th.

    drop-reply: it is executed, its reply is lost with the connection. drop-request: it is lost on its way,
    with the connection. deliver-late: the connection is lost at once, and it is executed after `seconds`.
    """

    deed: Deed
    match: Match
    times: int | None = None
    every: int = 1
    seconds: float = 0.0
    seen: int = 0
    hits: int = 0

    def strikes(self, words: Words) -> bool:
        if (self.times is not None and self.hits >= self.times) or not self.match(words):
            return False
        self.seen += 1
        if self.seen % self.every:
            return False
        self.hits += 1
        return True

    def await_hit(self, timeout: float = 20.0) -> None:
        """Wait until it has struck, and no longer."""
        wait_until(lambda: self.hits > 0, timeout, "a command that the rule strikes", poll=0.001)


@dataclass(slots=True, eq=False)
class _Link:
    """One connection of a client. `struck`: its next reply is lost, and the connection with it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    struck: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def close(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Listens on a free port of loopback and forwards to `port`. Use it as a context manager.

    Its own thread does the work; every method may be called from the test's.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        # Kept while nobody listens on it.
        self.port = free_port()
        #: Connections accepted so far.
        self.accepted = 0
        self._rules: list[Rule] = []
        self._links: set[_Link] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        assert not self._thread.is_alive(), "the proxy has not ended"
        self._loop.close()

    def url(self, url: str) -> str:
        """The same address through this proxy."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{self.port}").geturl()

    # Rules.

    def rule(
        self, deed: Deed, match: Match, *, times: int | None = None, every: int = 1, seconds: float = 0.0
    ) -> Rule:
        """Put a rule in force; it tells how often it has struck."""
        made = Rule(deed, match, times, every, seconds)
        self._loop.call_soon_threadsafe(self._rules.append, made)
        return made

    def clear(self) -> None:
        """Drop every rule."""
        self._loop.call_soon_threadsafe(self._rules.clear)

    # Trouble.

    def cut(self) -> None:
        """Every connection is lost; new ones are welcome."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Every connection is lost, and new ones are refused until `accept`."""
        self._do(self._refuse())

    def accept(self) -> None:
        """Undo `refuse`."""
        self._do(self._listen())

    def hang(self) -> None:
        """Nothing gets through and nothing is lost: what was sent arrives after `flow`, come what may."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def flow(self) -> None:
        """Undo `hang`."""
        self._loop.call_soon_threadsafe(self._flows.set)

    # In the proxy's thread.

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._welcome, "127.0.0.1", self.port)

    async def _cut(self) -> None:
        for link in list(self._links):
            link.close()

    async def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            # What has just been accepted attaches itself to the server in the loop's next rounds. Closed by
            # then, asyncio drops it with its socket open, and a later test is told of that.
            for listening in server.sockets:
                self._loop.remove_reader(listening.fileno())
            for _ in range(3):
                await asyncio.sleep(0)
            server.close()
        await self._cut()

    async def _end(self) -> None:
        self._flows.set()
        await self._refuse()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            await self._flows.wait()
            upstream, server = await asyncio.wait_for(
                asyncio.open_connection("127.0.0.1", self.target), _CONNECT_SECONDS
            )
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()
            return
        if self._server is None:  # refused meanwhile
            writer.transport.abort()
            server.transport.abort()
            return
        link = _Link(writer, server)
        self._links.add(link)
        link.tasks = [
            asyncio.create_task(self._to_server(reader, link)),
            asyncio.create_task(self._to_client(upstream, link)),
        ]
        # Until both sides are through: what a client has sent before it left still arrives.
        with suppress(asyncio.CancelledError):
            await asyncio.wait(link.tasks)
        self._links.discard(link)
        link.close()

    async def _to_server(self, reader: asyncio.StreamReader, link: _Link) -> None:
        frames = Frames()
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                for words, raw in frames.feed(data):
                    await self._flows.wait()
                    if not await self._pass_on(words, raw, link):
                        return
        await self._flows.wait()
        # The server reads to the end before it sees that nobody is there.
        with suppress(OSError, RuntimeError):
            link.server.write_eof()

    async def _pass_on(self, words: Words, raw: bytes, link: _Link) -> bool:
        rule = next((rule for rule in self._rules if rule.strikes(words)), None)
        if rule is not None and rule.deed == "drop-request":
            link.close()
            return False
        if rule is not None and rule.deed == "deliver-late":
            link.client.transport.abort()
            await asyncio.sleep(rule.seconds)
        link.struck = rule is not None
        link.server.write(raw)
        await link.server.drain()
        return True

    async def _to_client(self, reader: asyncio.StreamReader, link: _Link) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                if link.struck:
                    break
                link.client.write(data)
                await link.client.drain()
        link.close()


class Frames:
    """Cuts a client's bytes into commands: RESP arrays of bulk strings."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[list[bytes], bytes]]:
        """The commands that are complete now, as (words, bytes)."""
        self._buffer += data
        found = []
        while (frame := self._next()) is not None:
            found.append(frame)
        return found

    def _next(self) -> tuple[list[bytes], bytes] | None:
        head = self._line(0)
        if head is None:
            return None
        count, at = head
        words = []
        for _ in range(count):
            length = self._line(at)
            if length is None or len(self._buffer) < length[1] + length[0] + 2:
                return None
            words.append(bytes(self._buffer[length[1] : length[1] + length[0]]))
            at = length[1] + length[0] + 2
        raw = bytes(self._buffer[:at])
        del self._buffer[:at]
        return words, raw

    def _line(self, at: int) -> tuple[int, int] | None:
        """The number of a line `*N` or `$N`, and where the next one begins."""
        end = self._buffer.find(b"\r\n", at)
        if end < 0:
            return None
        assert self._buffer[at] in b"*$", f"no command: {bytes(self._buffer[at : at + 40])!r}"
        return int(self._buffer[at + 1 : end]), end + 2
