"""An open-loop load of `POST /v1/tasks`: `python -m bench.generator URL RATE SECONDS even|poisson`.

Requests are due at times fixed beforehand, and a latency counts from when a request was *due*: an API that
stalls delays nobody's clock, so a stall shows in every request that it held up. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import sys
from collections import Counter, deque
from urllib.parse import urlsplit

CONNECTIONS = 64
_BODY = json.dumps({"name": "nothing", "payload": {"number": 1}}).encode()


class Client(asyncio.Protocol):
    """One keep-alive connection, one request at a time; hands itself back to `load` when it is answered."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.due = 0.0
        self.transport: asyncio.Transport | None = None
        self.heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, due: float) -> None:
        assert self.transport is not None
        self.due = due
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        head, found, body = self.heard.partition(b"\r\n\r\n")
        if not found:
            return
        fields = head.lower().split(b"\r\n")
        length = next(int(f.partition(b":")[2]) for f in fields if f.startswith(b"content-length:"))
        if len(body) >= length:
            self.heard = b""
            self.load.answered(self, int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.due:
            self.load.answered(None, 0)


class Load:
    def __init__(self, host: str, port: int, dues: list[float]) -> None:
        self.host, self.port = host, port
        self.dues = dues
        self.request = (
            f"POST /v1/tasks HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(_BODY)}\r\n\r\n"
        ).encode() + _BODY
        self.free: deque[Client] = deque()
        self.waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.done = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def answered(self, client: Client | None, status: int) -> None:
        self.statuses[status] += 1
        if client is not None:
            self.latencies.append((self.loop.time() - client.due) * 1000)
            client.due = 0.0
            if self.waiting:
                client.ask(self.waiting.popleft())
            else:
                self.free.append(client)
        if self.statuses.total() == len(self.dues):
            self.done.set()

    def send(self, due: float) -> None:
        self.late.append((self.loop.time() - due) * 1000)
        if self.free:
            self.free.pop().ask(due)
        else:
            self.waiting.append(due)  # its clock runs

    async def connect(self) -> None:
        for _ in range(CONNECTIONS):
            _, client = await self.loop.create_connection(lambda: Client(self), self.host, self.port)
            self.free.append(client)

    async def run(self) -> dict[str, object]:
        await self.connect()
        base = self.loop.time() + 0.1
        for due in self.dues:
            self.loop.call_at(base + due, self.send, base + due)
        try:
            await asyncio.wait_for(self.done.wait(), self.dues[-1] + 60)
        except TimeoutError:
            self.statuses[-1] = len(self.dues) - self.statuses.total()
        return {"latencies": self.latencies, "late": self.late, "statuses": self.statuses}


def dues(rate: float, seconds: float, arrivals: str) -> list[float]:
    """When each request is due, in seconds from the start."""
    count = int(rate * seconds)
    if arrivals == "even":
        return [number / rate for number in range(count)]
    chance, at, found = random.Random(1), 0.0, []
    for _ in range(count):
        at += chance.expovariate(rate)
        found.append(at)
    return found


async def load(url: str, rate: float, seconds: float, arrivals: str) -> dict[str, object]:
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    return await Load(address.hostname, address.port, dues(rate, seconds, arrivals)).run()


def main() -> None:
    url, rate, seconds, arrivals = sys.argv[1:5]
    # select(2) wakes to the microsecond; epoll, which asyncio prefers, to the millisecond.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        print(json.dumps(runner.run(load(url, float(rate), float(seconds), arrivals))))


if __name__ == "__main__":
    main()
