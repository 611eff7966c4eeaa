from __future__ import annotations

import copy
import pickle
import re

import pytest

from callboard import errors


def tree(
    kind: type[errors.CallboardError] = errors.CallboardError,
) -> list[type[errors.CallboardError]]:
    return [
        kind,
        *(deeper for child in kind.__subclasses__() for deeper in tree(child)),
    ]


def test_every_error_has_a_kebab_case_code_and_a_docstring() -> None:
    kinds = [kind for kind in tree() if kind.__module__ == "callboard.errors"]
    assert len(kinds) > 20
    for kind in kinds:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code), kind
        assert kind.__doc__, kind
        assert kind.code in errors.codes()


def test_an_unknown_name_gives_the_nearest() -> None:
    error = errors.UnknownTask("knowlege.parse_link", ["knowledge.parse_link", "reports.build"])
    assert str(error) == "No task is named 'knowlege.parse_link'. Did you mean 'knowledge.parse_link'?"
    assert str(errors.UnknownQueue("zzz", ["reports"])) == "No queue is named 'zzz'."


@pytest.mark.parametrize(
    "error",
    [
        errors.TaskNotFound("reports_1"),
        errors.IllegalTransition("It has ended.", state="completed"),
        errors.InvalidPayload("Bad.", [errors.Problem("#/payload/url", "is missing", "missing")]),
        errors.MissingExtra("worker", "hiredis"),
        errors.Unconfirmed("reports_1", 1000),
        errors.TaskFailed("It failed.", {"id": "x"}, traceback="Traceback…"),
        errors.WaitTimeout("Not within 1 s."),
    ],
)
def test_an_error_survives_pickling_and_copying(error: errors.CallboardError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.__dict__ == error.__dict__


def test_a_failed_task_shows_the_remote_traceback() -> None:
    error = errors.TaskFailed("Task x failed.", traceback='  File "tasks.py", line 3\nValueError: no\n')
    assert str(error).endswith('Remote traceback:\n  File "tasks.py", line 3\nValueError: no')
    assert str(errors.TaskFailed("Task x failed.")) == "Task x failed."


def test_a_wait_that_ran_out_is_a_timeout_to_python_too() -> None:
    with pytest.raises(TimeoutError):
        raise errors.WaitTimeout("Not within 1 s.")
