"""docs/kubernetes/backup-restore.md: what it types on a laptop, typed; and what it says of broken backups."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from callboard.doctor import FAULTS, Checkup
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.submit import Submission, submit
from tests.docs import manual
from tests.docs.laptop import Laptop

PAGE = manual.MANUAL["backup-restore"]
TASKS = """from callboard import task


@task(queue="reports")
def build(month: str) -> str:
    return month
"""


def on_a_laptop() -> tuple[str, str]:
    """The blocks that back up and that restore."""
    section = PAGE.section("On a laptop")
    backup, restore = [text for text in manual.shell("backup-restore") if text in section]
    return backup, restore


def test_the_steps_of_the_pod_are_those_of_the_laptop() -> None:
    _, restore = on_a_laptop()
    pods = "".join(manual.shell("backup-restore")).replace('"', "'").replace("/data/", ".callboard/")
    for line in restore.splitlines():
        if line.startswith("printf"):
            assert line in pods
    assert ".callboard/appendonlydir/appendonly.aof.1.base.rdb' < backup.rdb" in pods
    assert "--rdb .callboard/backup.rdb" in pods


def test_a_backup_of_a_running_platform_is_restored(tmp_path: Path) -> None:
    if shutil.which("redis-cli") is None:
        pytest.skip("no redis-cli on PATH (scripts/install-services.sh brings it)")
    laptop = Laptop(tmp_path)
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    backup, restore = on_a_laptop()
    up = "callboard up tasks.py --slots 1 --no-scheduler"
    with laptop.up(up):
        kept = laptop.run("callboard submit build month=01 --wait --quiet").strip()
        waits = laptop.run("callboard submit build month=02 --delay 1h --quiet").strip()
        laptop.run(backup)
        later = laptop.run("callboard submit build month=03 --wait --quiet").strip()
    told = laptop.run(restore)
    assert re.search(r"^2 tasks in \d+ queues", told, re.MULTILINE), told
    laptop.run("callboard doctor --repair")
    # The worker of then counts as present for as long as it said before the backup, and perhaps no longer.
    faults = json.loads(laptop.run("callboard doctor --json"))["faults"]
    assert {fault["code"] for fault in faults} <= {"stale-claim"}
    with laptop.up(up):
        assert "completed" in laptop.run(f"callboard tasks show {kept}")
        assert "pending" in laptop.run(f"callboard tasks show {waits}")
        laptop.run(f"callboard tasks show {later}", code=4)
        laptop.run("callboard submit build month=04 --wait --quiet")


@pytest.fixture
def platform(start_server: Callable[..., EmbeddedServer]) -> Iterator[tuple[EmbeddedServer, Connection]]:
    """A server with an append-only file, and 20 tasks that wait in it."""
    server = start_server(persistent=True)
    connection = Connection(server.url)
    for _ in range(20):
        connection.run(submit(connection.keys, [Submission(name="build", queue="reports", payload={})]))
    yield server, connection
    connection.close()


@pytest.mark.parametrize("lost_bytes", [1, 97, 1003, 3001])
def test_a_file_that_was_cut_off_is_sound(
    platform: tuple[EmbeddedServer, Connection], lost_bytes: int
) -> None:
    server, connection = platform
    server.stop()
    [grown] = (server.data_dir / "appendonlydir").glob("*.incr.aof")
    whole = grown.read_bytes()
    grown.write_bytes(whole[:-lost_bytes])
    server.start()
    checkup = Checkup(connection)
    assert [fault for fault in checkup.faults() if not FAULTS[fault.code].passing] == []
    assert 0 < checkup.tasks < 20


def test_keys_that_are_gone_are_found_and_mended(platform: tuple[EmbeddedServer, Connection]) -> None:
    server, connection = platform
    keys = connection.keys.queue("reports")
    with redis.Redis.from_url(server.url) as client:
        lost = sorted(client.scan_iter(f"{keys.prefix}i:*"))[:3]
        assert client.delete(*lost) == 3
    found = [fault.code for fault in Checkup(connection).faults()]
    assert found, "the page says that faults come from people who delete keys"
    list(Checkup(connection, mend=True).faults())
    assert list(Checkup(connection).faults()) == []
