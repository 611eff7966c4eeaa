"""`callboard serve`: what it becomes, and with which settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from click.testing import CliRunner

from callboard.cli import serve as serve_module
from callboard.cli.group import callboard


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[str], Mapping[str, str]]]:
    seen: list[tuple[Sequence[str], Mapping[str, str]]] = []

    def execve(program: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
        assert program == words[0] == sys.executable
        seen.append((words[1:], environment))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", execve)
    return seen


def test_options_become_settings(became: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_NAMESPACE", "mine")
    words = [
        "worker",
        "--queues",
        "parsing,ai",
        "--slots",
        "3",
        "--modules",
        "acme.tasks",
        "--drain",
        "5",
        "--ops-port",
        "0",
    ]
    assert CliRunner().invoke(callboard, ["serve", *words]).exit_code == 0
    [(command, environment)] = became
    assert command == ["-m", "callboard_worker"]
    assert {name: value for name, value in environment.items() if name.startswith("CALLBOARD_")} == {
        "CALLBOARD_NAMESPACE": "mine",
        "CALLBOARD_WORKER_QUEUES": "parsing,ai",
        "CALLBOARD_WORKER_SLOTS": "3",
        "CALLBOARD_MODULES": "acme.tasks",
        "CALLBOARD_WORKER_DRAIN_SECONDS": "5.0",
        "CALLBOARD_OPS_PORT": "0",
    }


def test_what_is_not_given_stays_as_it_is(became: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_API_PORT", "8123")
    assert CliRunner().invoke(callboard, ["serve", "api", "--host", "127.0.0.2"]).exit_code == 0
    assert CliRunner().invoke(callboard, ["serve", "scheduler"]).exit_code == 0
    (api, environment), (scheduler, _) = became
    assert (api, scheduler) == (["-m", "callboard_api"], ["-m", "callboard_scheduler"])
    assert environment["CALLBOARD_API_PORT"] == "8123"
    assert environment["CALLBOARD_API_HOST"] == "127.0.0.2"
    assert "CALLBOARD_OPS_PORT" not in environment


def test_a_missing_extra_is_named_before_anything_starts(
    became: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "find_spec", lambda name: None if name == "apscheduler" else "spec")
    result = CliRunner().invoke(callboard, ["serve", "scheduler"])
    assert result.exit_code == 2
    assert result.stderr == (
        "callboard: This needs the extra 'scheduler' (apscheduler is not installed): "
        "pip install 'callboard[scheduler]'\n"
    )
    assert became == []


def test_a_bad_setting_is_told_by_its_name(became: list[Any]) -> None:
    result = CliRunner().invoke(callboard, ["serve", "worker", "--drain", "-1"])
    assert result.exit_code == 2
    assert "CALLBOARD_WORKER_DRAIN_SECONDS: expected a number of seconds" in result.stderr
    assert became == []


def test_every_service_can_be_had() -> None:
    for service in serve_module.EXTRAS:
        assert serve_module.service_command(service)[1:] == ["-m", f"callboard_{service}"]
