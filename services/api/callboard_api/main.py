"""The API as a process: `python -m callboard_api`, configured by the environment alone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import uvicorn
from starlette.applications import Starlette

from callboard import logging as our_logging
from callboard.errors import CallboardError, Invalid, InvalidSetting
from callboard.metrics import metrics
from callboard.ops import OpsServer
from callboard.settings import Settings, load
from callboard_api import wire
from callboard_api.app import create_app
from callboard_api.platform import Platform
from callboard_api.pulse import Pulse

logger = logging.getLogger("callboard.api")

#: What was asked before a shutdown is answered; what takes longer is cut off.
_GRACE_SECONDS: Final = 10
#: What is closed at once after a second signal.
_LAST_WORD_SECONDS: Final = 1
#: Longer than the idle time of the usual proxies, or they send into a connection that is being closed.
_KEEP_ALIVE_SECONDS: Final = 75
_BACKLOG: Final = 1024


class ApiServer(uvicorn.Server):
    """The server of one application. `stop` ends it in order; again, at once."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=wire.BoundedProtocol,
                loop="auto",  # uvloop where it is installed
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._platform: Platform = app.state.platform

    def stop(self) -> None:
        """From the loop's thread: take nothing new, let what runs end; the second call does not wait."""
        if self.should_exit:
            self.force_exit = True
        self._platform.stop_waiting()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:
            # uvicorn does not end the application then, which would be told as a failure of it.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lifespan.shutdown(), _LAST_WORD_SECONDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours: uvicorn would die by the signal after all is in order, and the exit would not be 0."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            # Not in the main thread (a test's server): then nobody signals us.
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                    loop.remove_signal_handler(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT: 0; 1: the port is taken; 2: a bad setting, route; 4: an unfit Redis."""
    argparse.ArgumentParser(
        prog="python -m callboard_api",
        description="Callboard's HTTP API. It is configured by CALLBOARD_… variables: see docs/settings.md.",
    ).parse_args(argv)
    try:
        settings = load()
    except InvalidSetting as error:
        sys.stderr.write(f"{error}\n")
        return 2
    our_logging.configure(settings.log_format, settings.log_level)
    # Its lines tell of its inside; what matters of them we say ourselves.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    unfit: list[str] = []
    server: ApiServer | None = None

    def give_up(reason: str) -> None:
        unfit.append(reason)
        if server is not None:
            server.stop()

    try:
        app = create_app(settings, on_unfit=give_up)
        listener = listen(settings.api_host, settings.api_port)
    except CallboardError as error:
        logger.error("%s", error)
        return 2 if isinstance(error, Invalid) else 1
    server = ApiServer(app)
    ops = _ops(settings, app.state.pulse)
    try:
        ops.start()
    except CallboardError as error:
        logger.error("%s", error)
        listener.close()
        return 1
    try:
        _announce(settings, listener, ops)
        # What is loaded now lives as long as the process: the collector need not walk it between requests.
        gc.collect()
        gc.freeze()
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[listener]))
    finally:
        ops.stop()
    if unfit:
        return 4
    logger.info("The API has stopped")
    return 0


def _is_news(record: logging.LogRecord) -> bool:
    # A reader of events that takes nothing is cut off in its stream on purpose, and we have said so.
    # No library for WebSockets is missing: nothing serves them yet, and who asks is answered.
    told = record.getMessage()
    return "without completing response" not in told and "WebSocket library" not in told


class PortTaken(CallboardError):
    """The address to listen on cannot be had."""

    code = "port-taken"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises PortTaken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name with both kinds of addresses ("localhost"): the one that everybody tries.
        family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise PortTaken(
            f"CALLBOARD_API_HOST, CALLBOARD_API_PORT: cannot listen on {host} port {port}: "
            f"{error.strerror or error}. Is another API running? CALLBOARD_API_PORT=0 takes a free port."
        ) from error
    listener.setblocking(False)
    return listener


def _ops(settings: Settings, pulse: Pulse) -> OpsServer:
    return OpsServer(
        settings.ops_host,
        settings.ops_port,
        live=pulse.alive,
        ready=lambda: pulse.verdict,
        metrics=metrics,
    )


def _announce(settings: Settings, listener: socket.socket, ops: OpsServer) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    who = "with the admin key" if settings.admin_key else "without a key: for this machine alone"
    logger.info("The API listens on http://%s:%d (%s)", address, port, who)
    logger.info("Probes and metrics are on port %d", ops.port)
