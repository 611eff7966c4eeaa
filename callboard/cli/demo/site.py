"""The demo's web site: the pages of `examples/site` on a loopback port, some of them badly behaved.

`python -m callboard.cli.demo.site --port 8900` serves it until Ctrl-C. How each page behaves, and how
a task that parses it should end, is data: the site's `manifest.json`.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from callboard.errors import Missing

Behaviour = Literal["plain", "slow", "busy", "missing", "endless", "moved"]

_TYPES = {
    ".html": "text/html",
    ".txt": "text/plain",
    ".css": "text/css",
    ".png": "image/png",
}
_PIECES = 30
_ENDLESS_PIECE = b"<p>" + b"Moooooooooooooooooooooooooh. " * 500 + b"</p>\n"
_ENDLESS_PAUSE_SECONDS = 0.02
_ENDLESS_PIECES = 20_000
"""Even what is endless to a reader must not run for ever when nobody ends it: here after 280 MiB."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """How the task that parses a page should end. None: not judged.

    `attempts` is the least number of them; `says` a part of the failure's explanation.
    """

    state: str
    reason: str | None = None
    says: str | None = None
    attempts: int = 1
    fields: dict[str, Any] = field(default_factory=dict)
    """What the result must hold: title, language, date."""


@dataclass(frozen=True, slots=True)
class SitePage:
    """One address of the site."""

    path: str
    expect: Expectation
    behaviour: Behaviour = "plain"
    note: str = ""
    charset: str = "utf-8"
    seconds: float = 0.0
    times: int = 0
    retry_after_seconds: int = 1
    to: str = ""


def site_folder() -> Path:
    """Where the pages are: beside this file in an installed tree, in `examples/site` of a clone.

    Raises Missing when they are in neither place.
    """
    here = Path(__file__).resolve()
    for folder in (here.with_name("pages"), here.parents[3] / "examples" / "site"):
        if (folder / "manifest.json").is_file():
            return folder
    raise Missing("The demo's pages are not installed: examples/site is missing.")


def load_pages(folder: Path) -> tuple[SitePage, ...]:
    """The pages of a site's manifest, in its order. Raises ValueError for an unknown behaviour."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return tuple(_page(entry) for entry in manifest["pages"])


def _page(entry: dict[str, Any]) -> SitePage:
    expect = dict(entry["expect"])
    known = {name: expect.pop(name) for name in ("state", "reason", "says", "attempts") if name in expect}
    page = SitePage(**{**entry, "expect": Expectation(**known, fields=expect)})
    if page.behaviour not in get_args(Behaviour):
        raise ValueError(f"{page.path} behaves like {page.behaviour!r}, which no page does.")
    return page


class Site:
    """Serves a folder of pages on 127.0.0.1 from a thread, until it is closed. `port` 0 takes a free one."""

    def __init__(self, folder: Path | None = None, port: int = 0) -> None:
        self.folder = folder or site_folder()
        self.pages = load_pages(self.folder)
        self.requests: Counter[str] = Counter()
        """GETs by path."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="demo-site")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving, slow and endless answers included. May be called twice."""
        if not self._closing.is_set():
            self._closing.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def count(self, path: str) -> int:
        """Note a request; answers how many there were, this one included."""
        with self._lock:
            self.requests[path] += 1
            return self.requests[path]

    def page(self, path: str) -> SitePage | None:
        return next((page for page in self.pages if page.path == path), None)

    def pause(self, seconds: float) -> bool:
        """Wait; true when the site is closing and whoever waits should stop."""
        return self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], site: Site) -> None:
        self.site = site
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A reader that hangs up (the size cap, a killed worker) is what this site is for.
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "HarbourAlmanac/1"
    sys_version = ""
    timeout = 30
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        path = "/index.html" if path == "/" else path
        seen = self.server.site.count(path)
        page = self.server.site.page(path)
        behaviour = page.behaviour if page is not None else "plain"
        if page is not None and behaviour == "endless":
            self._send_endless()
        elif page is not None and behaviour == "moved":
            self._send(HTTPStatus.MOVED_PERMANENTLY, b"", {"Location": page.to})
        elif page is not None and behaviour == "busy" and seen <= page.times:
            self._send(
                HTTPStatus.SERVICE_UNAVAILABLE,
                b"<h1>One moment, please</h1>",
                {"Retry-After": str(page.retry_after_seconds)},
            )
        else:
            self._send_file(path, page)

    do_HEAD = do_GET

    def _send_file(self, path: str, page: SitePage | None) -> None:
        # Only names of the folder itself: no path of a request is ever joined to it.
        file = {f"/{entry.name}": entry for entry in self.server.site.folder.iterdir()}.get(path)
        kind = _TYPES.get(file.suffix) if file is not None else None
        if file is None or kind is None:
            self._send(HTTPStatus.NOT_FOUND, b"<!doctype html><title>Not here</title><p>No such page.")
            return
        body = file.read_bytes()
        charset = page.charset if page is not None else "utf-8"
        if kind.startswith("text/"):
            body = body.decode("utf-8").encode(charset)
            kind = f"{kind}; charset={charset}"
        seconds = page.seconds if page is not None else 0.0
        self._send(HTTPStatus.OK, body, {"Content-Type": kind}, seconds)

    def _send(
        self, status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None, seconds: float = 0.0
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/html; charset=utf-8", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if not seconds:
            self.wfile.write(body)
            return
        size = max(1, -(-len(body) // _PIECES))
        for start in range(0, len(body), size):
            if self.server.site.pause(seconds / _PIECES):
                self.close_connection = True
                return
            self.wfile.write(body[start : start + size])
            self.wfile.flush()

    def _send_endless(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(b"<!doctype html><title>The foghorn</title>\n")
        for _ in range(_ENDLESS_PIECES):
            self.wfile.write(_ENDLESS_PIECE)
            if self.server.site.pause(_ENDLESS_PAUSE_SECONDS):
                return


def main() -> None:
    """Serve the site until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m callboard.cli.demo.site", description=main.__doc__)
    parser.add_argument("--port", type=int, default=8900, help="0 takes a free one (default: 8900)")
    with Site(port=parser.parse_args().port) as site:
        print(f"The Harbour Almanac is at {site.url}/index.html", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("Closed.")


if __name__ == "__main__":
    main()
