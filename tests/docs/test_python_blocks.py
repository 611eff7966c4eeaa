"""Every Python block runs, as a reader would run it: in a folder, with the platform beside it.

A block that begins with `# NAME.py` is that file, several of one name are one file; any other is a program of
its own. `callboard up` runs the files that declare tasks, where a page has programs for them; files called
`test_…` go to pytest, the others to Python. What a page shows behind a `print` (`# …`) is what it must print.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.laptop import Laptop
from tests.docs.page import NAMES, PAGES

#: What makes a file one that workers import.
DECLARES = re.compile(r"^@task\b|^@dramatiq\.actor\b|^app = App\(", re.MULTILINE)
#: The address in pages that speak of a Redis of one's own; here there is the embedded server.
SHOWN_REDIS = '"redis://localhost:6379/0"'

#: Without the plug-ins of this repository, which a reader's folder has not and which are slow to load.
PYTEST = "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 pytest -q -p no:cacheprovider"
#: The README's run with its shell lines: test_newcomer.py.
WITH_PYTHON = [
    name
    for name in NAMES
    if name != "README.md" and any(block.language == "python" for block in PAGES[name].blocks)
]


def files_of(page: str) -> dict[str, str]:
    """File name -> its text, in the order of the page."""
    files: dict[str, str] = {}
    for block in PAGES[page].blocks:
        if block.language != "python":
            continue
        named = re.match(r"# (\w+\.py)\n", block.text)
        name = named[1] if named else f"line_{block.line}.py"
        files[name] = files.get(name, "") + block.text.replace(SHOWN_REDIS, "") + "\n"
    return files


def expectations(source: str) -> Iterator[str]:
    """What the comments behind `print(…)` statements say that they print, in order."""
    lines = source.splitlines()
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    for statement in sorted(statements, key=lambda node: node.lineno):
        called = statement.value.func if isinstance(statement.value, ast.Call) else None
        if isinstance(called, ast.Name) and called.id == "print":
            rest = _rest(lines, statement)
            if rest.startswith("# "):
                yield rest.removeprefix("# ")


def _rest(lines: list[str], statement: ast.stmt) -> str:
    """What stands behind a statement on its last line."""
    assert statement.end_lineno is not None
    return lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode().strip()


def assert_printed(page: str, name: str, source: str, printed: str) -> None:
    told = printed.splitlines()
    for wanted in expectations(source):
        pattern = ".*".join(map(re.escape, wanted.split("…")))
        place = next((n for n, line in enumerate(told) if re.fullmatch(pattern, line)), None)
        assert place is not None, f"{page}, {name} does not print {wanted!r} but:\n{printed}"
        del told[: place + 1]


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    files = files_of(page)
    for name, source in files.items():
        compile(source, name, "exec")
        (tmp_path / name).write_text(source, encoding="utf-8")
    modules = [name for name, source in files.items() if DECLARES.search(source)]
    programs = [name for name in files if name not in modules]
    laptop = Laptop(tmp_path)
    if not programs:
        for name in modules:
            laptop.run(f"python {name}")
        return
    without = "--no-scheduler" if "callboard.client" in PAGES[page].text else "--no-scheduler --no-api"
    with laptop.up(f"callboard up {' '.join(modules)} --slots 2 {without}"):
        for name in programs:
            runner = PYTEST if name.startswith("test_") else "python"
            assert_printed(page, name, files[name], laptop.run(f"{runner} {name}"))


def test_there_is_a_bash() -> None:
    assert shutil.which("bash")


def test_what_a_page_says_is_printed_is_compared() -> None:
    source = 'print(1)  # 1\nprint("id reports_01 is done")  # id … is done\nprint(3)\n'
    assert list(expectations(source)) == ["1", "id … is done"]
    assert_printed("page", "name", source, "1\nid reports_01 is done\n3\n")
    with pytest.raises(AssertionError, match="does not print"):
        assert_printed("page", "name", source, "id reports_01 is done\n1\n")
