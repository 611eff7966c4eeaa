"""The rules of the house that no tool knows: small files, honest names, locks without addresses."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("callboard", "callboard_apps", "services")
LONGEST_FILE_LINES = 400
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}


def sources() -> list[Path]:
    return [
        path.relative_to(ROOT)
        for room in ROOMS
        for suffix in ("*.py", "*.lua")
        for path in sorted((ROOT / room).rglob(suffix))
    ]


@pytest.mark.parametrize("path", sources(), ids=str)
def test_a_file_is_one_noun_that_fits_in_a_head(path: Path) -> None:
    lines = (ROOT / path).read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE_LINES, f"{path} has {lines} lines: it is more than one thing"
    assert not NAMES_THAT_SAY_NOTHING & {part.removesuffix(path.suffix) for part in path.parts}


def test_a_file_of_tests_is_as_small() -> None:
    lengths = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n")
        for path in (ROOT / "tests").rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE_LINES} == {}


def test_every_package_opens_with_what_it_is_for() -> None:
    silent = [
        str(path)
        for path in sources()
        if path.suffix == ".py" and not (ROOT / path).read_text(encoding="utf-8").startswith(('"""', 'r"""'))
    ]
    assert silent == []


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_a_lock_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index-url" not in text
    entries = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert entries
    assert all("==" in line and line.endswith("\\") for line in entries)


def test_every_lua_script_ships_in_the_package() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, sources())], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ignored.stdout == "", "hatch leaves ignored files out of the wheel"


def test_every_application_entry_point_names_a_folder() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, target in project["entry-points"]["callboard.apps"].items():
        assert target == f"callboard_apps.{name}:app"


def test_property_tests_are_repeatable_in_ci() -> None:
    """Before any test module is imported: its decorators take the profile that holds then."""
    check = (
        "import os, tests.conftest; from hypothesis import given, settings, strategies as st\n"
        "def draw():\n"
        "    seen = []\n"
        "    settings(max_examples=20)(given(st.integers())(lambda number: seen.append(number)))()\n"
        "    return seen\n"
        "assert settings.default.deadline is None and settings.default.database is None\n"
        "assert settings(max_examples=1).derandomize, 'a test of its own settings is repeatable too'\n"
        "print(draw())"
    )
    environment = {**os.environ, "CI": "true"}
    runs = {
        subprocess.run(
            [sys.executable, "-c", check],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    }
    assert len(runs) == 1
