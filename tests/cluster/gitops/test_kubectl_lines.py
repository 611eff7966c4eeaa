"""Every `kubectl …` that a page shows is one that kubectl understands: it gets as far as asking a server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.gitops.test_k8s import tool
from tests.docs.page import NAMES, PAGES, ROOT
from tests.docs.test_command_lines import words_of

#: Nobody listens here.
SERVER = "http://127.0.0.1:9"


def lines_of(name: str) -> Iterator[str]:
    """The shell lines of a page that call kubectl, also inside `$(…)`, and such words in backticks."""
    for block in PAGES[name].blocks:
        if block.language in ("", "sh", "console"):
            for line in re.sub(r"\\\n", " ", block.text).splitlines():
                for found in re.finditer(r"(?:^ *|\$\(|\| )(kubectl [^#\n]*)", line):
                    yield found[1]
    # `kubectl scale` alone is a name; with a namespace it is a command.
    yield from (word for word in PAGES[name].words if word.startswith("kubectl -n "))


LINES = sorted({(name, line) for name in NAMES for line in lines_of(name)})


def shown(name: str) -> set[str]:
    """The files that a page shows, by the comment at their head."""
    texts = [block.text for block in PAGES[name].blocks if block.language == "yaml"]
    return {found[1] for text in texts if (found := re.match(r"# ([\w-]+\.yaml)\n", text))}


def refusal(line: str) -> str:
    """What kubectl says to a line, without a server to ask."""
    words = words_of(line)[1:]
    done = subprocess.run(
        [tool("kubectl"), f"--server={SERVER}", "--request-timeout=2s", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return "" if done.returncode == 0 else done.stderr.strip()


@pytest.mark.parametrize(("page", "line"), LINES)
def test_kubectl_understands_the_line(page: str, line: str) -> None:
    told = refusal(line)
    # A file that the page shows: it has got as far as wanting to read it.
    if any(f'the path "{name}" does not exist' in told for name in shown(page)):
        return
    assert not told or "connection refused" in told or f"{SERVER.removeprefix('http://')} was refused" in told


def test_wrong_lines_are_found() -> None:
    for wrong in (
        "kubectl gett pods",
        "kubectl get pods --lable a=b",
        "kubectl scale deploy/x",
        "kubectl apply -k no",
    ):
        assert "refused" not in refusal(wrong), wrong
    assert "refused" in refusal("kubectl get pods")


def test_many_lines_are_looked_at() -> None:
    assert len(LINES) > 20
