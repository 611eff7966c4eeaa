"""`make cluster-tools` puts the programs where the lab looks for them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster.lab.tools import VARIABLE, find_tools

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "tests" / "cluster" / "tools" / "build.sh"

#: Compiles nothing: the programs take an hour. It writes what `-o` names.
GO = """#!/bin/sh
while [ $# -gt 0 ]; do
    if [ "$1" = -o ]; then echo built > "$2"; chmod +x "$2"; fi
    shift
done
"""


def build(folder: str, *programs: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    shims = cwd / "shims"
    shims.mkdir(exist_ok=True)
    (shims / "go").write_text(GO, encoding="utf-8")
    (shims / "go").chmod(0o755)
    environment = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}
    command = [str(BUILD), folder, *programs]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("absolute", [False, True])
def test_programs_are_built_into_the_callers_folder(tmp_path: Path, absolute: bool) -> None:
    folder = str(tmp_path / "out") if absolute else "out"
    done = build(folder, "kubeconform", "kube", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {"kubeconform", "kube", "kubectl"}
    again = build(folder, "kubeconform", "kube", cwd=tmp_path)
    assert again.stdout == "kubeconform: there\nkube: there\n"


def test_an_unknown_program_is_named(tmp_path: Path) -> None:
    done = build("out", "kubectl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "build.sh: unknown program kubectl\n")


def test_the_folder_of_the_target_is_the_labs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    told = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "cluster-tools"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    command = next(line for line in told.stdout.splitlines() if "build.sh" in line)
    assert (ROOT / command.split()[1]).resolve() == find_tools().folder
