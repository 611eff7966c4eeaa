"""Settings: the one place where Callboard reads the environment.

Flat names, `CALLBOARD_<GROUP>_<FIELD>`. A secret may come from a file instead: `CALLBOARD_KEY_FILE`.
An unknown name stops the start with the nearest known one, and so does a bad value, with what it got
and what it expected; all faults are told at once. `python -m callboard.settings` prints the page
`docs/settings.md`.

Every entry file loads its settings once and passes them on.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from callboard.errors import InvalidSetting, nearest

PREFIX: Final = "CALLBOARD_"

# A Service called `callboard` or `callboard-…` makes Kubernetes (and Docker's links) inject these
# into every pod of the namespace. They are nobody's settings.
_LINK_NAME = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$|_ENV_[A-Z0-9_]+$"
)
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")

_REDIS_URL = re.compile(r"(rediss?(\+(cluster|sentinel))?|unix)://\S+")
_PASSWORD = re.compile(r"(?<=://)([^/@\s]*:)[^/@\s]+(?=@)|((?:^|[?&])password=)[^&\s]+")


def _setting(default: Any, help: str, expected: str, *, secret: bool = False, **limits: Any) -> Any:
    extra: JsonDict = {"expected": expected, "secret": secret}
    return Field(default, description=help, json_schema_extra=extra, repr=not secret, **limits)


def _count(default: int | None, help: str, low: int = 1, high: int | None = None) -> Any:
    return _setting(default, help, f"a whole number, {_range(low, high)}", ge=low, le=high)


def _seconds(default: float, help: str, low: float = 0, high: float | None = None) -> Any:
    return _setting(
        default, help, f"a number of seconds, {_range(low, high)}", ge=low, le=high, allow_inf_nan=False
    )


def _range(low: float, high: float | None) -> str:
    return f"{low:,} or more" if high is None else f"{low:,} to {high:,}"


class Settings(BaseModel):
    """All settings, frozen. A field `worker_slots` is the variable `CALLBOARD_WORKER_SLOTS`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: str | None = _setting(
        None,
        "Where Redis (7.0 or newer) or Valkey (7.2 or newer) is. Unset: `callboard up` starts one.",
        "a URL: redis://, rediss:// (TLS), unix://, redis+cluster://h1,h2 or redis+sentinel://h1,h2/service/db",
        secret=True,
    )
    namespace: str = _setting(
        "cb",
        "The first part of every key, so that two environments can share one Redis.",
        "1 to 32 letters, digits, `.`, `_` or `-`",
        pattern=r"^[A-Za-z0-9._-]{1,32}$",
    )
    durability: Literal["fast", "synced", "replicated"] = _setting(
        "fast",
        "What Redis must have kept before a submit is answered: `fast` (a machine crash can lose the last "
        "2 s), `synced` (Redis runs with `appendfsync always`), `replicated` (one replica has it, else 503).",
        "fast, synced or replicated",
    )
    data_dir: Path = _setting(
        Path(".callboard"), "Where `callboard up` keeps the embedded server's data.", "a folder"
    )
    memory_submit_percent: int = _count(
        80, "Redis memory, in percent of its maxmemory, above which submits are refused with 507.", 1, 100
    )
    memory_followup_percent: int = _count(
        95, "The same mark for what workers submit to go on with work that was accepted.", 1, 100
    )
    queue_max_depth: int = _count(
        1_000_000, "Tasks that may wait in one queue (pending and queued); more are refused with 429."
    )

    modules: tuple[str, ...] = _setting(
        (),
        "Modules with tasks, imported by workers at start.",
        "dotted names or .py files, separated by commas",
    )
    apps: tuple[str, ...] | None = _setting(
        None,
        "Which installed applications are on; unset: all, `none`: none.",
        "names separated by commas, or `none`",
    )

    api_host: str = _setting("127.0.0.1", "The address that the API listens on.", "an address or host name")
    api_port: int = _count(8000, "The port that the API listens on; 0 takes a free one.", 0, 65535)
    ops_host: str = _setting(
        "127.0.0.1", "The address of `/livez`, `/readyz` and `/metrics`.", "an address or host name"
    )
    ops_port: int = _count(
        9000, "The port of `/livez`, `/readyz` and `/metrics`; 0 takes a free one.", 0, 65535
    )
    admin_key: SecretStr | None = _setting(
        None,
        "The key that may do everything. Without it the API serves this machine only.",
        "16 characters or more, without spaces",
        secret=True,
    )

    url: str = _setting(
        "http://127.0.0.1:8000", "The API that the CLI and the client speak to.", "an http:// or https:// URL"
    )
    key: SecretStr | None = _setting(
        None, "The key that the CLI and the client send.", "a key without spaces", secret=True
    )

    worker_queues: tuple[str, ...] = _setting(
        (),
        "The queues that a worker serves, in order of precedence; empty: all that its modules declare.",
        "queue names separated by commas",
    )
    worker_slots: int | None = _count(
        None,
        "Tasks that a worker runs at once in processes and threads together; unset: the CPUs it may use.",
        1,
        10_000,
    )
    worker_loop_slots: int = _count(1_000, "Tasks that a worker runs at once on its event loop.", 1, 100_000)
    worker_drain_seconds: float = _seconds(
        60, "How long running tasks may go on after SIGTERM before they are released."
    )
    worker_lease_seconds: float = _seconds(
        20, "How long a claim holds without a renewal. Renewed four times as often.", 0.2, 3600
    )
    worker_grace_seconds: float = _seconds(
        10,
        "How long a body may take to end after a cancel, or after a soft limit without a hard one, before it "
        "is killed (in a thread or on the event loop: given up).",
    )
    worker_tasks_per_child: int | None = _count(
        None, "Tasks after which a process slot gets a new child (± 10%); unset: never."
    )

    fetch_private_addresses: bool = _setting(
        True,
        "Whether tasks that fetch pages may visit loopback, private and link-local addresses. Turn it off "
        "where those who submit tasks must not reach what the workers can reach.",
        "true or false",
    )

    log_format: Literal["text", "json"] = _setting(
        "text", "How log lines on standard error look.", "text or json"
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = _setting(
        "info", "The lowest level that is logged.", "debug, info, warning, error or critical"
    )

    retention_completed_days: float = _setting(
        7,
        "Days that completed and cancelled tasks are kept.",
        "a number of days, 0 or more",
        ge=0,
        allow_inf_nan=False,
    )
    retention_failed_days: float = _setting(
        30, "Days that failed tasks are kept.", "a number of days, 0 or more", ge=0, allow_inf_nan=False
    )
    retention_completed_count: int = _count(
        200_000, "Completed tasks kept in one queue, the newest; and as many cancelled ones.", 0
    )
    retention_failed_count: int = _count(50_000, "Failed tasks kept in one queue, the newest.", 0)
    retention_memory_percent: int = _count(
        60,
        "Redis memory, in percent of its maxmemory, above which the oldest completed tasks go first.",
        1,
        100,
    )
    events_keep: int = _count(100_000, "Events kept in one queue for streams that resume.", 0)
    events_hours: float = _setting(
        24, "Hours that events are kept at most.", "a number of hours, above 0", gt=0, allow_inf_nan=False
    )

    @field_validator("modules", "apps", "worker_queues", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = tuple(dict.fromkeys(name for name in re.split(r"[,\s]+", value) if name))
        return () if names == ("none",) else names

    @field_validator("log_level", "log_format", "durability", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, value: str | None) -> str | None:
        if value is not None and not _REDIS_URL.fullmatch(value):
            raise ValueError("unknown scheme")
        return value

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/]+\S*", value):
            raise ValueError("no http URL")
        return value.rstrip("/")

    @field_validator("admin_key", "key")
    @classmethod
    def _sane_key(cls, value: SecretStr | None, info: Any) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            if not re.fullmatch(r"[\x21-\x7e]+", text) or (info.field_name == "admin_key" and len(text) < 16):
                raise ValueError("not fit for a header, or too short")
        return value

    @model_validator(mode="after")
    def _marks_in_order(self) -> Settings:
        if self.memory_submit_percent > self.memory_followup_percent:
            raise ValueError(
                f"CALLBOARD_MEMORY_SUBMIT_PERCENT ({self.memory_submit_percent}) must not be above "
                f"CALLBOARD_MEMORY_FOLLOWUP_PERCENT ({self.memory_followup_percent})."
            )
        return self

    def __repr_args__(self) -> Any:
        yield from super().__repr_args__()
        if self.redis_url:
            yield "redis_url", without_password(self.redis_url)


def without_password(url: str) -> str:
    """The URL with its password as `***`, for logs and messages."""
    return _PASSWORD.sub(lambda match: f"{match[1] or match[2]}***", url)


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One row of the settings page; `default` as one would write it, empty for none."""

    name: str
    type: str
    default: str
    help: str
    secret: bool


def describe() -> list[SettingDoc]:
    """Every setting in the order of the page."""
    rows = []
    for field, info in Settings.model_fields.items():
        extra = _extra(field)
        default = info.default
        text = "" if default is None else ",".join(default) if isinstance(default, tuple) else str(default)
        rows.append(
            SettingDoc(_variable(field), extra["expected"], text, info.description or "", extra["secret"])
        )
    return rows


def load(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `env`, by default the process environment.

    An empty value counts as unset. Raises InvalidSetting, whose message has a line for each fault.
    """
    source = os.environ if env is None else env
    known = {_variable(field): field for field in Settings.model_fields}
    secret_files = {f"{name}_FILE": name for name, field in known.items() if _extra(field)["secret"]}
    values: dict[str, str] = {}
    faults: list[str] = []
    for name in sorted(key for key in source if key.startswith(PREFIX)):
        value = source[name].strip()
        if _is_link(name, value) or (not value and (name in known or name in secret_files)):
            continue
        if name in known:
            values[known[name]] = value
        elif name in secret_files:
            if source.get(secret_files[name], "").strip():
                faults.append(f"{name} and {secret_files[name]} are both set; set one.")
                continue
            try:
                values[known[secret_files[name]]] = _read_secret(value)
            except (OSError, ValueError) as fault:
                faults.append(f"{name}: expected a file that holds the value; got {value!r} ({fault}).")
        else:
            faults.append(f"{name} is not a setting.{nearest(name, [*known, *secret_files])}")
    return _build(values, faults)


def colours_wanted() -> bool:
    """Whether a terminal may get colours: https://no-color.org asks to leave them out."""
    return not os.environ.get("NO_COLOR")


def child_environment(overrides: Mapping[str, str | None]) -> dict[str, str]:
    """This process's environment with some variables changed (None removes one), for a process to start."""
    environment = {**os.environ, **{name: value for name, value in overrides.items() if value is not None}}
    return {name: value for name, value in environment.items() if overrides.get(name, "") is not None}


def _build(values: Mapping[str, str], faults: list[str]) -> Settings:
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            if not fault["loc"]:
                faults.append(str(fault["msg"]).removeprefix("Value error, "))
                continue
            field = str(fault["loc"][0])
            extra = _extra(field)
            got = "a value that is not shown" if extra["secret"] else repr(values[field])
            faults.append(f"{_variable(field)}: expected {extra['expected']}; got {got}.")
    else:
        if not faults:
            return settings
    raise InvalidSetting("\n".join(dict.fromkeys(faults)))


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _extra(field: str) -> dict[str, Any]:
    extra = Settings.model_fields[field].json_schema_extra
    assert isinstance(extra, dict)
    return extra


def _is_link(name: str, value: str) -> bool:
    return _LINK_NAME.search(name) is not None or (
        name.endswith("_PORT") and _LINK_VALUE.match(value) is not None
    )


def _read_secret(path: str) -> str:
    text = Path(path).read_text(encoding="utf-8").strip()
    if not text:
        raise ValueError("it is empty")
    return text


def page() -> str:
    """`docs/settings.md`, whole."""
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable. A secret may come from a file instead: the same name",
        "with `_FILE` holds the path. An empty value counts as unset. An unknown `CALLBOARD_…` name stops",
        "the start and names the nearest known one; variables that Kubernetes injects for a Service called",
        "`callboard` are ignored.",
        "",
        "This page is generated: `python -m callboard.settings > docs/settings.md`.",
        "",
        "| Setting | Value | Default | What it does |",
        "|-|-|-|-|",
    ]
    for row in describe():
        note = f" Secret: also `{row.name}_FILE`." if row.secret else ""
        default = f"`{row.default}`" if row.default else "–"
        lines.append(f"| `{row.name}` | {row.type} | {default} | {row.help}{note} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
