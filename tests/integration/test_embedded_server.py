"""The embedded server on real processes: addresses, crashes, folders used twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from callboard.errors import InvalidSetting, MissingExtra
from callboard.storage import embedded
from callboard.storage.embedded import EmbeddedServer, EmbeddedServerFailed
from tests.support.redis_server import server_program
from tests.support.waiting import wait_until


@pytest.fixture
def server(server_kind: str, tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(
        tmp_path / "data", program=server_program(server_kind), appendfsync="always"
    ) as server:
        yield server


def connect(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def test_it_answers_on_both_addresses_and_only_with_its_password(server: EmbeddedServer) -> None:
    assert server.socket_url
    for url in (server.url, server.socket_url):
        with connect(url) as client:
            assert client.ping()
    with (
        redis.Redis(port=server.port or 0, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_it_never_evicts_and_keeps_an_append_only_file(server: EmbeddedServer) -> None:
    with connect(server.url) as client:
        assert client.config_get("maxmemory-policy", "appendonly", "appendfsync") == {
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "appendfsync": "always",
        }


def test_data_survives_a_stop_and_a_kill_on_the_same_address(server: EmbeddedServer) -> None:
    url = server.url
    with connect(url) as client:
        client.set("a", "1")
    server.kill()
    assert not server.alive
    assert server.pid is None
    server.start()
    with connect(url) as client:
        assert client.get("a") == "1"
        client.set("b", "2")
    server.stop()
    server.stop()
    server.start()
    assert server.url == url
    with connect(url) as client:
        assert client.mget("a", "b") == ["1", "2"]


def test_a_folder_outlives_a_change_of_server(tmp_path: Path) -> None:
    kinds = ("valkey", "redis", "valkey")
    for turn, program in enumerate([server_program(kind) for kind in kinds]):
        with EmbeddedServer(tmp_path, program=program) as server, connect(server.url) as client:
            assert client.zcard("turns") == turn
            client.zadd("turns", {str(turn): turn})
            client.xadd("events", {"turn": turn})
            client.bgrewriteaof()
            wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 30, "the rewrite")


def test_the_terminals_ctrl_c_does_not_reach_it(server: EmbeddedServer) -> None:
    assert server.pid
    assert os.getsid(server.pid) == server.pid != os.getsid(0)


def test_a_folder_has_one_owner(server: EmbeddedServer) -> None:
    second = EmbeddedServer(server.data_dir)
    with pytest.raises(EmbeddedServerFailed, match=rf"belongs to process {os.getpid()}\."):
        second.start()
    assert server.alive
    server.stop()
    with second:
        assert second.alive


def test_a_folder_that_cannot_be_made_or_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "lock" / "owner.lock").mkdir(parents=True)
    for folder, why in ((tmp_path / "file", "File exists"), (tmp_path / "lock", "Is a directory")):
        with pytest.raises(InvalidSetting, match=rf"CALLBOARD_DATA_DIR: .*'{folder}' \({why}\)"):
            EmbeddedServer(folder).start()


def test_a_server_whose_owner_was_killed_is_replaced(server_kind: str, tmp_path: Path) -> None:
    program = server_program(server_kind)
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
                from pathlib import Path
                from callboard.storage.embedded import EmbeddedServer
                server = EmbeddedServer(Path({str(tmp_path)!r}), program=Path({str(program)!r})).start()
                import redis
                redis.Redis.from_url(server.url).set("kept", "yes")
                print(server.pid, flush=True)
                input()
            """),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout
        orphan = int(owner.stdout.readline())
        owner.send_signal(signal.SIGKILL)
    os.kill(orphan, 0)
    with EmbeddedServer(tmp_path, program=program) as server, connect(server.url) as client:
        assert client.get("kept") == "yes"
        wait_until(lambda: not alive(orphan), 30, "the orphan's end")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody reaps counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_taken_port_is_named(server: EmbeddedServer, tmp_path: Path) -> None:
    other = EmbeddedServer(tmp_path / "other", port=server.port)
    with pytest.raises(EmbeddedServerFailed, match=f"Port {server.port} of 127.0.0.1 is taken"):
        other.start()


def test_a_server_that_cannot_start_is_quoted(server_kind: str, tmp_path: Path) -> None:
    broken = EmbeddedServer(tmp_path, program=server_program(server_kind), config={"no-such-line": "1"})
    with pytest.raises(EmbeddedServerFailed, match="no-such-line"):
        broken.start()
    # The folder is free again.
    with EmbeddedServer(tmp_path, program=server_program(server_kind)):
        pass


def test_odd_paths_work(server_kind: str, tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" folder \\ with ünïcode' / ("x" * 100)
    with EmbeddedServer(folder, program=server_program(server_kind)) as server:
        assert server.socket_url is None
        with connect(server.url) as client:
            assert client.config_get("dir")["dir"] == str(folder)


def test_nothing_is_readable_by_others(server: EmbeddedServer) -> None:
    assert server.data_dir.stat().st_mode & 0o077 == 0
    assert (server.data_dir / "server.url").stat().st_mode & 0o077 == 0
    assert (server.data_dir / ".gitignore").read_text() == "*\n"


def test_without_any_server_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(embedded, "bundled_server", lambda: None)
    with pytest.raises(MissingExtra, match=r"callboard\[laptop\]"):
        embedded.find_server()


def test_path_comes_before_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}" if name == "redis-server" else None)
    assert embedded.find_server() == Path("/opt/redis-server")


@pytest.mark.proof
def test_synced_writes_survive_twenty_kills(server: EmbeddedServer) -> None:
    for round_ in range(20):
        with connect(server.url) as client:
            assert client.incr("counter") == round_ + 1
        server.kill()
        server.start()
