"""How Lua is kept: headers, names shared with Python, commands of Redis 7.0 at most, no globals, reloads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from callboard.records import layout
from callboard.storage import keys as keys_module
from callboard.storage.connection import AsyncConnection, Connection
from callboard.storage.keys import QueueKeys
from callboard.storage.operation import ScriptCall
from callboard.storage.scripts import join, script, shaken
from tests.support.scripted_queue import START_MS, NewTask, ScriptedQueue

ROOT = Path(keys_module.__file__).parents[1]
FILES = sorted(ROOT.rglob("lua/*.lua"))
FRAGMENTS = [path for path in FILES if path.read_text(encoding="utf-8").startswith("-- Fragment:")]
SCRIPTS = [path for path in FILES if path not in FRAGMENTS]
RECORD = (ROOT / "broker" / "lua" / "record.lua").read_text(encoding="utf-8")

scripts = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
#: Redis's Lua brings these.
GLOBALS = {
    *("KEYS", "ARGV", "redis", "cjson", "cmsgpack", "string", "table", "math", "pairs", "ipairs", "type"),
    *("tonumber", "tostring", "unpack", "error", "pcall"),
}
KEYWORDS = {
    *("and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil"),
    *("not", "or", "repeat", "return", "then", "true", "until", "while"),
}
_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)|(?P<string>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<number>0x[0-9a-fA-F]+|\d+\.?\d*(?:[eE][-+]?\d+)?)|(?P<sign>\.\.\.?|[=~<>]=|.)"""
)


def package(path: Path) -> str:
    return f"callboard.{path.parents[1].name}"


def tokens(source: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(source):
        if match.lastgroup and match.lastgroup != "space":
            yield match.lastgroup, match.group()


@scripts
def test_a_script_opens_with_what_it_takes_and_gives(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    header = text[: re.search(r"^(?!--)", text, re.MULTILINE).start()]  # type: ignore[union-attr]
    code = text.removeprefix(header)
    assert re.search(r"^-- KEYS\[1\]  \S", header, re.MULTILINE)
    assert re.search(r"^-- Returns  \S", header, re.MULTILINE)
    taken = {int(number) for number in re.findall(r"ARGV\[(\d+)", code)}
    told = {int(number) for number in re.findall(r"ARGV\[(\d+)", header)}
    assert not taken - told or re.search(r"ARGV\[\d+…\]|then ", header), (
        f"ARGV {taken - told} are not explained"
    )
    if "ARGV" in code:
        assert told, "takes arguments that nobody explains"
    if "event" in (re.match(r"-- uses: (.*)", text) or [""])[0]:
        assert 'ARGV[1]  events "FULL:KEEP"' in header


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_a_fragment_is_used_and_does_nothing_by_itself(path: Path) -> None:
    users = [user for user in SCRIPTS if path.stem in uses(user)]
    assert users


def uses(path: Path) -> list[str]:
    named = re.findall(r"^-- (?:uses|here): (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [fragment for names in named for fragment in names.split(", ")]


@scripts
def test_a_script_compiles_with_its_fragments(path: Path, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.script_load(join(package(path), path.stem).source)


def undeclared(source: str) -> set[str]:
    """Names that are used where no `local`, parameter or loop variable of that name is in sight."""
    words = [("sign", ""), *tokens(source), ("sign", "")]
    scopes: list[set[str]] = [set()]
    found, loop_opens = set(), False
    declares = ""  # the keyword whose names are being listed
    for (_, before), (kind, word), (_, after) in zip(words, words[1:], words[2:], strict=False):
        if kind != "name":
            if (word == ")" and declares == "function") or (word == "=" and declares):
                declares = ""
            continue
        if word in ("elseif", "else", "end", "until"):
            scopes.pop()
        if word in ("then", "else", "repeat", "function", "for") or (word == "do" and not loop_opens):
            if before == "local":  # a local function is known outside and inside of its block
                scopes[-1].add(after)
            scopes.append(set())
        if word in ("for", "do"):
            loop_opens = word == "for"
        if word in ("local", "function", "for"):
            declares = word
        elif word in KEYWORDS:
            declares = ""
        elif before not in (".", ":"):
            if before == "function":
                pass  # its name: declared already, or a field of what is
            elif declares:
                scopes[-1].add(word)
                if declares == "local" and after not in (",", "="):
                    declares = ""
            elif not (after == "=" and before in ("{", ",")) and not any(word in scope for scope in scopes):
                found.add(word)
    assert len(scopes) == 1, "the blocks do not close"
    return found - GLOBALS


@scripts
def test_a_script_uses_no_name_that_is_not_local(path: Path) -> None:
    """It would be an error, but only on the path that meets it."""
    assert undeclared(join(package(path), path.stem).source) == set()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("local a = 1 return a + b", {"b"}),
        ("local function f(x) return x end return f(x)", {"x"}),
        ("local function f(x) return g(x) end local function g(x) return x end return f(1)", {"g"}),
        ("for i, v in pairs(KEYS) do local w = v end return w, i", {"w", "i"}),
        ("local t = { a = 1, b = c } if t.a then local d = t.b else return d end", {"c", "d"}),
        ("local t = {} function t.f(x) if x then return t.f(false) end return x end return t", set()),
        ("local a, b while a do b = 'c' .. [[no]] break end repeat local e = b until a", set()),
    ],
)
def test_the_search_for_names_finds_what_is_not_local(source: str, names: set[str]) -> None:
    assert undeclared(source.replace("[[no]]", "''")) == names


def commands() -> set[str]:
    found = set()
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        found |= {word.upper() for word in re.findall(r"\bp?call\('(\w+)'", text)}
    for path in ROOT.rglob("*.py"):
        found |= {
            word.upper() for word in re.findall(r"\bCommand\(\s*\"(\w+)\"", path.read_text(encoding="utf-8"))
        }
    return found


def test_no_command_is_newer_than_redis_7_and_none_walks_all_keys(redis_url: str) -> None:
    used = commands()
    assert {"ZADD", "XADD", "MGET", "SADD"} <= used
    assert not used & {"KEYS", "FLUSHALL", "FLUSHDB", "SAVE", "WAITAOF"}
    with redis.Redis.from_url(redis_url) as client:
        # The words in one text: redis-py has a parser for COMMAND alone, which fails on these replies.
        reply: Any = client.execute_command("COMMAND DOCS", *sorted(used))
    if isinstance(reply, list):
        reply = dict(zip(reply[::2], reply[1::2], strict=True))
    since = {}
    for name, listed in reply.items():
        facts = listed if isinstance(listed, dict) else dict(zip(listed[::2], listed[1::2], strict=True))
        since[name.decode().upper()] = tuple(int(part) for part in facts[b"since"].decode().split("."))
    assert since.keys() == used
    newer = {name: version for name, version in since.items() if version > (7, 0, 99)}
    assert newer == {}


def numbered() -> dict[str, int]:
    """The constants of record.lua."""
    numbers: dict[str, int] = {}
    for names, values in re.findall(r"^local ([A-Z_, ]+) = ([\d, ]+)\b", RECORD, re.MULTILINE):
        numbers.update(zip(names.split(", "), map(int, values.split(", ")), strict=True))
    return numbers


def test_python_and_lua_number_the_fields_of_a_record_alike() -> None:
    numbers = numbered()
    assert numbers.pop("FIELDS") == len(layout.Mutable._fields)
    renamed = {"FAIR": "fairness_key", "QUEUED_AT": "queued"}
    in_lua = {number: renamed.get(name, name.lower()) for name, number in numbers.items()}
    assert in_lua == dict(enumerate(layout.Mutable._fields, 1))
    assert f"RECORD_VERSION = '\\{layout.VERSION[0]}'" in RECORD


def test_python_and_lua_spell_the_keys_alike() -> None:
    queue = QueueKeys("ns", "q")
    spelled = {queue.state(state).removeprefix(queue.prefix) for state in keys_module.STATE_SETS}
    for name, member in vars(QueueKeys).items():
        if isinstance(member, property):
            spelled.add(str(getattr(queue, name)).removeprefix(queue.prefix))
        elif callable(member) and not name.startswith("_") and name != "state":
            spelled.add(str(getattr(queue, name)("ID")).removeprefix(queue.prefix).removesuffix("ID"))
    in_lua = set()
    for path in FILES:
        in_lua |= set(re.findall(r"\bP \.\. '([^']+)'", path.read_text(encoding="utf-8")))
    assert {"i:", "m:", "pending", "meta"} <= in_lua
    assert in_lua - spelled == set()


@scripts
def test_no_constant_is_put_into_a_text(path: Path) -> None:
    """Constants marked `inline` are replaced by their numbers wherever the word stands."""
    files = [path, *(ROOT / "broker" / "lua" / f"{name}.lua" for name in uses(path))]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    inline = {
        name
        for names in re.findall(r"^local ([A-Z_, ]+) = [\d, ]+ -- inline", source, re.MULTILINE)
        for name in names.split(", ")
    }
    words = {word for kind, text in tokens(source) if kind == "string" for word in re.findall(r"\w+", text)}
    assert not inline & words


def test_a_script_is_loaded_again_after_the_server_forgot_it(redis_url: str, namespace: str) -> None:
    connection = Connection(redis_url, namespace=namespace)
    pause = ScriptCall(script("callboard.broker", "pause"), connection.keys.queue("q").prefix, ("1",))
    assert connection.execute(pause) == 1
    connection.client.script_flush()
    assert connection.execute(pause) == 0
    loaded: Any = connection.client.script_exists(pause.script.sha)
    assert loaded == [True]
    connection.close()


async def test_a_script_is_loaded_again_from_an_event_loop_too(redis_url: str, namespace: str) -> None:
    connection = AsyncConnection(redis_url, namespace=namespace)
    pause = ScriptCall(script("callboard.broker", "pause"), connection.keys.queue("q").prefix, ("1",))
    assert await connection.execute(pause) == 1
    await connection.client.script_flush()
    assert await connection.execute(pause) == 0
    await connection.close()


def test_functions_that_nothing_calls_are_left_out() -> None:
    source = (
        "local function one(a) return a end\n"
        "local function two(a)\n  if a then return one(a) end\n\n  return a\nend\n"
        "local function kept(a)\n  return a -- not two at all\nend\n"
        "return kept(1)\n"
    )
    assert shaken(source) == (
        "local function one(a) return a end\n"
        "local function two(a)\n  if a then return one(a) end\n\n  return a\nend\n"
        "local function kept(a)\n  return a -- not two at all\nend\n"
        "return kept(1)\n"
    ), "a name in a comment counts as a use: too much is kept rather than too little"
    without_comment = source.replace(" -- not two at all", "")
    assert shaken(without_comment) == "local function kept(a)\n  return a\nend\nreturn kept(1)\n"


def test_a_new_record_has_the_fields_that_the_script_leaves_to_python(redis_url: str, namespace: str) -> None:
    with closing(Connection(redis_url, namespace=namespace)) as connection:
        queue = ScriptedQueue(connection)
        queue.submit(NewTask("t1", name="n", owner="o", key="k", weight=0.5, max_attempts=7, nonce="x1"))
        stored = queue.look().records["t1"].mutable
    assert len(stored) == len(layout.Mutable._fields)
    told = (stored.name, stored.owner, stored.fairness_key, stored.weight, stored.max_attempts, stored.nonce)
    assert told == (b"n", b"o", b"k", 0.5, 7, b"x1")
    assert (stored.state, stored.wait, stored.created, stored.queued) == (b"queued", -1, START_MS, START_MS)
