"""What the README and examples/README.md tell a newcomer to type is typed here, and answers as they show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.laptop import Laptop
from tests.docs.page import PAGES, ROOT, Block

README = PAGES["README.md"]
EXAMPLES = PAGES["examples/README.md"]


def block(start: str) -> Block:
    """The README's block that begins so."""
    [found] = [block for block in README.blocks if block.text.startswith(start)]
    return found


def test_the_readmes_curl_its_202_and_its_commands(readers_laptop: Laptop) -> None:
    # The curl and its answer are one block to Markdown, for nothing stands between them.
    curl, head, body = block("curl ").text.strip().split("\n\n")
    told_head, _, told = readers_laptop.run(f"{curl} -sS").replace("\r\n", "\n").partition("\n\n")
    task_id = json.loads(told)["id"]
    status, *headers = head.replace(shown_id(body), task_id).splitlines()
    assert told_head.startswith(f"{status}\n")
    assert set(headers) <= set(told_head.splitlines())
    assert told.startswith(body.replace(shown_id(body), task_id).partition("…")[0])
    for command in README.words:
        if command.startswith("callboard ") and "--modules" not in command:
            readers_laptop.run(command.replace("ID", task_id))


def test_the_readmes_python(readers_laptop: Laptop) -> None:
    [call] = [word for word in README.words if word.startswith("build.submit(")]
    printed = readers_laptop.run(f"python -c 'from tasks import build; print({call})'")
    assert printed == "{'month': '2026-11', 'rows': 100}\n"
    readers_laptop.run(f"python <<'END'\n{block('import dramatiq').text}END")


def shown_id(body: str) -> str:
    found = re.match(r'\{"id":"([^"]+)"', body)
    assert found is not None
    return found[1]


def shell_lines(section: str) -> Iterator[str]:
    """The lines of the section's blocks, those that go on joined."""
    text = EXAMPLES.section(section)
    for part in EXAMPLES.blocks:
        if part.text.splitlines()[0] in text and not part.language:
            yield from part.text.replace("\\\n", " ").strip().splitlines()


#: Lines whose end is a failure, as the page says.
FAIL = ("callboard submit file_away month= --wait",)


def test_the_examples_commands(tmp_path: Path) -> None:
    laptop = Laptop(ROOT, data_dir=tmp_path / "data")
    up, *lines = shell_lines("Tasks of your own")
    up_actors, send, look = shell_lines("A Dramatiq program")
    printed: dict[str, str] = {}
    # Both sections beside one platform: starting one takes longest here.
    with laptop.up(f"{up} {up_actors.removeprefix('callboard up ')}", log=tmp_path / "up.log"):
        for line in lines:
            command = re.sub(r"  +#.*", "", line).replace("reports_…", printed.get("id", ""))
            code = 1 if command.startswith(FAIL) else 0
            printed[command] = laptop.run(command.replace("curl ", "curl -sS "), code=code)
            if command.startswith("curl -X POST"):
                printed["id"] = json.loads(printed[command])["id"]
        [program] = [word for word in EXAMPLES.words if word.startswith("python examples/tasks.py")]
        assert "'rows': 50" in laptop.run(program)
        [number] = re.findall(r"sent (\S+)", laptop.run(re.sub(r"  +#.*", "", send)))
        assert f"counting_{number}" in laptop.run(look)
    [waited] = [text for command, text in printed.items() if "Prefer: wait" in command]
    assert json.loads(waited)["state"] == "completed"
    [ran] = [text for command, text in printed.items() if command.startswith("callboard run")]
    assert json.loads(ran)["rows"] == 3


def test_the_examples_site(tmp_path: Path) -> None:
    """That its pages can be parsed is the business of tests/applications."""
    laptop = Laptop(ROOT)
    serve, submit = shell_lines("The site")
    with laptop.service(f"{serve} --port 0", tmp_path / "site.log", until="http://"):
        [address] = re.findall(r"http://127\.0\.0\.1:\d+", (tmp_path / "site.log").read_text())
        [page] = re.findall(r"http://127\.0\.0\.1:8900(/\S+)", submit)
        assert "<title>" in laptop.run(f"curl -sSf {address}{page}")
