"""What every test may ask for: a real server, its address, a namespace of its own."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from callboard.storage.embedded import EmbeddedServer
from tests.support.redis_server import new_server

# Settings of the person at the keyboard must not reach the tests. The one that is meant for us moves to a
# name without our prefix, since Callboard refuses settings that it does not know; xdist's workers inherit it.
if _kind := os.environ.get("CALLBOARD_TEST_SERVER"):
    os.environ["TEST_SERVER"] = _kind
for _name in [name for name in os.environ if name.startswith("CALLBOARD_")]:
    del os.environ[_name]

# The tests start hundreds of interpreters. Without bytecode on disk each would spend most of its start on
# compiling Callboard and what it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Started in the background of a shell without job control, the tests ignore Ctrl-C, and so would every
# process that a test starts and then interrupts. Handled here, it has its default there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A run that turns red must turn red again when it is repeated, on a machine however slow. The person at the
# keyboard gets new examples each time. Hypothesis does much the same by itself, on machines that it knows.
if os.environ.get("CI") == "true":
    hypothesis.settings.register_profile(
        "repeatable",
        derandomize=True,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("repeatable")

# Folders whose tests are all long ones.
PROOFS = ("chaos", "cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(tests) and item.path.relative_to(tests).parts[0] in PROOFS:
            item.add_marker(pytest.mark.proof)


def _skip_is_failure(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under CI=true nothing may be left out in silence: a skip becomes a failure with its reason."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}\nCI=true, so a skip is a failure. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _skip_is_failure(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _skip_is_failure(report)
    return report


@pytest.fixture(scope="session")
def server_kind() -> str:
    """Which server the tests run on: `valkey` (the wheel's, default) or `redis` (this machine's)."""
    return os.environ.get("TEST_SERVER", "valkey")


@pytest.fixture(scope="session")
def redis_server(server_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The server that all tests of this process share. Do not stop it: start your own with `start_server`."""
    with new_server(tmp_path_factory.mktemp("redis"), server_kind) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: EmbeddedServer) -> str:
    """The shared server's address, password included."""
    return redis_server.url


@pytest.fixture
def start_server(server_kind: str, tmp_path: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    """Starts servers that belong to one test and may be killed: `start_server(persistent=…, config={…})`."""
    servers: list[EmbeddedServer] = []

    def start(**options: object) -> EmbeddedServer:
        server = new_server(tmp_path / f"redis-{len(servers)}", server_kind, **options)  # type: ignore[arg-type]
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def namespace() -> str:
    """A prefix for keys that no other test uses, so that tests share a server without meeting."""
    return f"t{uuid.uuid4().hex[:12]}"
