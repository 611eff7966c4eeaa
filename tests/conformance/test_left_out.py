"""The table of what is left out stays true: every name in it exists, and every stand-in of ours."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.conformance import hosts, source
from tests.conformance.table import LEFT_OUT, LONG

HERE = Path(__file__).parent
#: Parameters of the fixtures of Dramatiq's stores.
BACKENDS = ("redis", "stub")


@pytest.fixture(scope="module")
def theirs() -> Path:
    """The folder of Dramatiq's tests."""
    try:
        return source.fetch()
    except source.NoTests as why:
        pytest.skip(str(why))


@cache
def names_in(path: Path) -> frozenset[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions))


def missing(folder: Path, name: str) -> str | None:
    """What of `name` is not there."""
    module, _, test = name.partition("::")
    test, _, kind = test.partition("[")
    if not (folder / f"{module}.py").is_file():
        return f"module {module}"
    if test and test not in names_in(folder / f"{module}.py"):
        return f"test {test}"
    if kind and kind.rstrip("]") not in (*hosts.NAMES, *BACKENDS):
        return f"kind {kind}"
    return None


@pytest.mark.parametrize("name", [*LEFT_OUT, *LONG])
def test_what_the_table_names_exists(theirs: Path, name: str) -> None:
    assert missing(theirs, name) is None


@pytest.mark.parametrize("name", [entry.name for entry in LEFT_OUT.values() if entry.ours])
def test_its_stand_in_exists(name: str) -> None:
    assert missing(HERE, LEFT_OUT[name].ours or "") is None


@pytest.mark.parametrize("name", [*LEFT_OUT, *LONG])
def test_everything_has_a_reason(name: str) -> None:
    reason = LEFT_OUT[name].reason if name in LEFT_OUT else LONG[name]
    assert len(reason.split()) >= 3


def test_a_name_that_is_gone_is_found(theirs: Path) -> None:
    assert missing(theirs, "test_actors::test_actors_can_be_defined[runner]") is None
    assert missing(theirs, "test_actors::test_actors_can_be_defined[slot]") == "kind slot]"
    assert missing(theirs, "test_actors::test_nothing") == "test test_nothing"
    assert missing(theirs, "test_nothing::test_actors_can_be_defined") == "module test_nothing"
