from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from callboard.catalog.loading import ModuleFailed, load


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def failure(wanted: str) -> str:
    with pytest.raises(ModuleFailed) as caught:
        load([wanted])
    # The whole story is in the message; no chained exception of ours is printed above it.
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return str(caught.value)


def test_a_file_and_its_neighbours_are_imported(tmp_path: Path) -> None:
    write(tmp_path / "project" / "cb_tasks_a.py", "import cb_neighbour_a\nNAME = __name__\n")
    write(tmp_path / "project" / "cb_neighbour_a.py", "")
    [module] = load(["project/cb_tasks_a.py"])
    assert module.NAME == "cb_tasks_a"
    assert load([str(tmp_path / "project" / "cb_tasks_a.py")]) == [module]


def test_a_dotted_name_is_found_from_the_working_directory(tmp_path: Path) -> None:
    write(tmp_path / "cb_acme" / "__init__.py", "")
    write(tmp_path / "cb_acme" / "tasks.py", "X = 1\n")
    [module] = load(["cb_acme.tasks"])
    assert module.X == 1


def test_a_file_in_a_package_is_that_packages_module(tmp_path: Path) -> None:
    write(tmp_path / "cb_pack" / "__init__.py", "")
    write(tmp_path / "cb_pack" / "inner" / "__init__.py", "Y = 2\n")
    write(tmp_path / "cb_pack" / "inner" / "tasks.py", "from . import Y\n")
    [module, package] = load(["cb_pack/inner/tasks.py", "cb_pack/inner/__init__.py"])
    assert (module.__name__, module.Y) == ("cb_pack.inner.tasks", 2)
    assert package.__name__ == "cb_pack.inner"


def test_a_namesake_of_an_installed_module_is_loaded_all_the_same(tmp_path: Path) -> None:
    write(tmp_path / "json.py", "MINE = True\n")
    [module] = load(["json.py"])
    assert module.MINE
    assert not hasattr(sys.modules["json"], "MINE")


def test_a_file_name_that_is_no_identifier_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "my-tasks.py", "Z = 3\n")
    assert load(["my-tasks.py"])[0].Z == 3


def test_what_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    assert failure("nowhere.py").startswith("Module 'nowhere.py' cannot be loaded: there is no file ")
    assert (
        failure("cb_nowhere.tasks")
        == "Module 'cb_nowhere.tasks' cannot be loaded: no module is named 'cb_nowhere'."
    )
    write(tmp_path / "cb_pkg" / "__init__.py", "")
    assert failure("cb_pkg.missing").endswith("no module is named 'cb_pkg.missing'.")


def test_a_failing_module_shows_its_own_traceback_and_none_of_ours(tmp_path: Path) -> None:
    write(
        tmp_path / "cb_broken.py",
        """
        import json

        def configure():
            return json.loads("{")

        configure()
        """,
    )
    for wanted in ("cb_broken", "cb_broken.py"):
        message = failure(wanted)
        assert message.startswith(
            f"Module {wanted!r} cannot be loaded:\nTraceback (most recent call last):\n"
        )
        assert "cb_broken.py" in message.splitlines()[2]
        assert "JSONDecodeError" in message.splitlines()[-1]
        assert "callboard/catalog" not in message
        assert "importlib" not in message


def test_the_cause_of_a_cause_is_shown_without_our_frames_too(tmp_path: Path) -> None:
    write(
        tmp_path / "cb_chained.py",
        """
        try:
            {}["key"]
        except KeyError as error:
            raise RuntimeError("no key") from error
        """,
    )
    message = failure("cb_chained")
    assert "KeyError: 'key'" in message
    assert message.endswith("RuntimeError: no key")
    assert "callboard/catalog" not in message


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("@task(queue='q', retrys=3)", "a task has no option 'retrys'. Did you mean 'retries'? There are "),
        ("@task(queue='q', priority=11)", "task 'build' priority: expected 0 (first) to 9; got 11."),
        ("Queue('q', slots=0)\n@task", "Queue('q') slots: expected a whole number above 0; got 0."),
    ],
)
def test_what_we_refuse_shows_the_line_that_has_to_be_mended_and_nothing_below_it(
    tmp_path: Path, line: str, told: str
) -> None:
    write(tmp_path / "cb_refused.py", f"from callboard import Queue, task\n{line}\ndef build(): ...\n")
    message = failure("cb_refused.py")
    assert "cb_refused.py" in message.splitlines()[2]
    assert line.splitlines()[0] in message.splitlines()[3]
    assert "callboard/catalog" not in message
    assert told in message.splitlines()[-1]


def test_a_missing_import_inside_the_module_is_its_own_failure(tmp_path: Path) -> None:
    write(tmp_path / "cb_needs.py", "import cb_not_installed\n")
    message = failure("cb_needs")
    assert "line 1" in message
    assert message.endswith("ModuleNotFoundError: No module named 'cb_not_installed'")


def test_a_syntax_error_shows_its_line(tmp_path: Path) -> None:
    write(tmp_path / "cb_syntax.py", "def f(:\n")
    message = failure("cb_syntax.py")
    assert "cb_syntax.py" in message
    assert "def f(:" in message
    assert "SyntaxError" in message


def test_a_module_that_exits_does_not_take_the_worker_with_it(tmp_path: Path) -> None:
    write(tmp_path / "cb_exits.py", "raise SystemExit(3)\n")
    assert failure("cb_exits.py").endswith("SystemExit: 3")


def test_a_wrong_declaration_in_the_module_keeps_its_message(tmp_path: Path) -> None:
    write(tmp_path / "cb_wrong.py", "from callboard import Contract\nContract('a', priority=77)\n")
    message = failure("cb_wrong.py")
    assert "cb_wrong.py:2: task 'a' priority: expected 0 (first) to 9; got 77." in message


def test_a_failed_file_can_be_mended_and_loaded_again(tmp_path: Path) -> None:
    write(tmp_path / "cb-mend.py", "raise ValueError\n")
    failure("cb-mend.py")
    write(tmp_path / "cb-mend.py", "OK = True\n")
    assert load(["cb-mend.py"])[0].OK
