"""Collects Dramatiq's tests as if they stood here, so that they find our fixtures instead of theirs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from callboard.broker.broker import CallboardBroker
from tests.conformance import source, surroundings
from tests.conformance.table import LEFT_OUT, LONG, matches

#: What their tests are imported as; the package's `common` module is ours.
PACKAGE = "dramatiq_suite"
OF_THE_CLI = ("test_cli", "test_pidfile")


class Suite(pytest.File):
    """All of Dramatiq's tests; the file is the table of those that are left out."""

    def collect(self) -> Iterable[pytest.Collector]:
        try:
            folder = source.fetch()
        except source.NoTests as why:
            pytest.skip(str(why))
        _package(folder)
        for path in sorted(folder.glob("test_*.py")):
            if path.stem in LEFT_OUT:
                continue  # not even imported
            yield SuiteModule.from_parent(
                self,
                name=path.name,
                path=self.path,
                nodeid=f"{Path(self.nodeid).parent}/dramatiq/{path.name}",
            )


class SuiteModule(pytest.Module):
    """One of their modules. Its path is the table's, which puts it under our conftest files."""

    def _getobj(self) -> ModuleType:
        name = Path(self.name).stem
        if name not in OF_THE_CLI:
            return importlib.import_module(f"{PACKAGE}.{name}")
        # These make brokers when they are imported, as their processes do.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dramatiq.brokers.redis.RedisBroker", CallboardBroker)
            patch.setattr("dramatiq.brokers.stub.StubBroker", CallboardBroker)
            return importlib.import_module(f"{PACKAGE}.{name}")

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        for item in super().collect():
            words = f"{Path(self.name).stem}::{item.name}"
            if any(matches(words, pattern) for pattern in LEFT_OUT):
                continue
            if any(matches(words, pattern) for pattern in LONG):
                item.add_marker(pytest.mark.proof)
            yield item


def _package(folder: Path) -> None:
    if PACKAGE not in sys.modules:
        pytest.register_assert_rewrite(PACKAGE)
        package: Any = ModuleType(PACKAGE)
        package.__path__ = [str(folder)]
        sys.modules[PACKAGE] = package
        sys.modules[f"{PACKAGE}.common"] = package.common = surroundings
