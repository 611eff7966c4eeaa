"""Every setting, declared once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, SecretStr, field_validator, model_validator

from callboard.settings.fields import count, seconds, setting

PREFIX: Final = "CALLBOARD_"

_REDIS_URL = re.compile(r"(rediss?(\+(cluster|sentinel))?|unix)://\S+")
_PASSWORD = re.compile(r"(?<=://)([^/@\s]*:)[^/@\s]+(?=@)|((?:^|[?&])password=)[^&\s]+")


class Settings(BaseModel):
    """All settings, frozen. A field `worker_slots` is the variable `CALLBOARD_WORKER_SLOTS`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: str | None = setting(
        None,
        "Where Redis (7.0 or newer) or Valkey (7.2 or newer) is. Unset: `callboard up` starts one.",
        "a URL: redis://, rediss:// (TLS), unix://, redis+cluster://h1,h2 or redis+sentinel://h1,h2/service/db",
        secret=True,
    )
    namespace: str = setting(
        "cb",
        "The first part of every key, so that two environments can share one Redis.",
        "1 to 32 letters, digits, `.`, `_` or `-`",
        pattern=r"^[A-Za-z0-9._-]{1,32}$",
    )
    durability: Literal["fast", "synced", "replicated"] = setting(
        "fast",
        "What Redis must have kept before a submit is answered: `fast` (a machine crash can lose the last "
        "2 s), `synced` (Redis runs with `appendfsync always`), `replicated` (one replica has it, else 503).",
        "fast, synced or replicated",
    )
    data_dir: Path = setting(
        Path(".callboard"), "Where `callboard up` keeps the embedded server's data.", "a folder"
    )
    memory_submit_percent: int = count(
        80, "Redis memory, in percent of its maxmemory, above which submits are refused with 507.", 1, 100
    )
    memory_followup_percent: int = count(
        95, "The same mark for what workers submit to go on with work that was accepted.", 1, 100
    )
    queue_max_depth: int = count(
        1_000_000, "Tasks that may wait in one queue (pending and queued); more are refused with 429."
    )

    modules: tuple[str, ...] = setting(
        (),
        "Modules with tasks, imported by workers at start.",
        "dotted names or .py files, separated by commas",
    )
    apps: tuple[str, ...] | None = setting(
        None,
        "Which installed applications are on; unset: all, `none`: none.",
        "names separated by commas, or `none`",
    )

    api_host: str = setting("127.0.0.1", "The address that the API listens on.", "an address or host name")
    api_port: int = count(8000, "The port that the API listens on; 0 takes a free one.", 0, 65535)
    ops_host: str = setting(
        "127.0.0.1", "The address of `/livez`, `/readyz` and `/metrics`.", "an address or host name"
    )
    ops_port: int = count(
        9000, "The port of `/livez`, `/readyz` and `/metrics`; 0 takes a free one.", 0, 65535
    )
    admin_key: SecretStr | None = setting(
        None,
        "The key that may do everything. Without it the API serves this machine only.",
        "16 characters or more, without spaces",
        secret=True,
    )

    url: str = setting(
        "http://127.0.0.1:8000", "The API that the CLI and the client speak to.", "an http:// or https:// URL"
    )
    key: SecretStr | None = setting(
        None, "The key that the CLI and the client send.", "a key without spaces", secret=True
    )

    worker_queues: tuple[str, ...] = setting(
        (),
        "The queues that a worker serves, in order of precedence; empty: all that its modules declare.",
        "queue names separated by commas",
    )
    worker_slots: int | None = count(
        None,
        "Tasks that a worker runs at once in processes and threads together; unset: the CPUs it may use.",
        1,
        10_000,
    )
    worker_loop_slots: int = count(1_000, "Tasks that a worker runs at once on its event loop.", 1, 100_000)
    worker_drain_seconds: float = seconds(
        60, "How long running tasks may go on after SIGTERM before they are released."
    )
    worker_lease_seconds: float = seconds(
        20, "How long a claim holds without a renewal. Renewed four times as often.", 0.2, 3600
    )
    worker_grace_seconds: float = seconds(
        10,
        "How long a body may take to end after a cancel, or after a soft limit without a hard one, before it "
        "is killed (in a thread or on the event loop: given up).",
    )
    worker_tasks_per_child: int | None = count(
        None, "Tasks after which a process slot gets a new child (± 10%); unset: never."
    )

    cluster: Literal["auto", "off"] = setting(
        "auto",
        "Whether to speak to Kubernetes: `auto`, where a service account is mounted; `off`, never.",
        "auto or off",
    )
    cluster_pod: str | None = setting(
        None,
        "The name of this pod (`metadata.name`); unset: the host name.",
        "a pod's name",
        pattern=r"^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$",
    )
    cluster_account_dir: Path = setting(
        Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        "Where the service account's `token`, `ca.crt` and `namespace` are.",
        "a folder",
    )
    cluster_deletion_cost: bool = setting(
        True,
        "Whether a worker tells Kubernetes what it has in hand, so that scaling in takes idle pods first.",
        "true or false",
    )
    cluster_protect_seconds: float | None = seconds(
        None,
        "How long a task must have run before its worker asks cluster-autoscaler and Karpenter to leave the "
        "pod alone; unset: never.",
    )
    cluster_selector: str = setting(
        "callboard.dev/worker-set",
        "The labels of the worker Deployments whose scaling the API shows.",
        "`label` or `label=value`, separated by commas",
        pattern=r"^[A-Za-z0-9._/-]+(=[A-Za-z0-9._-]*)?(,[A-Za-z0-9._/-]+(=[A-Za-z0-9._-]*)?)*$",
    )

    fetch_private_addresses: bool = setting(
        True,
        "Whether tasks that fetch pages may visit loopback, private and link-local addresses. Turn it off "
        "where those who submit tasks must not reach what the workers can reach.",
        "true or false",
    )

    log_format: Literal["text", "json"] = setting(
        "text", "How log lines on standard error look.", "text or json"
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = setting(
        "info", "The lowest level that is logged.", "debug, info, warning, error or critical"
    )

    retention_completed_days: float = setting(
        7,
        "Days that completed and cancelled tasks are kept.",
        "a number of days, 0 or more",
        ge=0,
        allow_inf_nan=False,
    )
    retention_failed_days: float = setting(
        30, "Days that failed tasks are kept.", "a number of days, 0 or more", ge=0, allow_inf_nan=False
    )
    retention_completed_count: int = count(
        200_000, "Completed tasks kept in one queue, the newest; and as many cancelled ones.", 0
    )
    retention_failed_count: int = count(50_000, "Failed tasks kept in one queue, the newest.", 0)
    retention_memory_percent: int = count(
        60,
        "Redis memory, in percent of its maxmemory, above which the oldest completed tasks go first.",
        1,
        100,
    )
    events_keep: int = count(100_000, "Events kept in one queue for streams that resume.", 0)
    events_hours: float = setting(
        24, "Hours that events are kept at most.", "a number of hours, above 0", gt=0, allow_inf_nan=False
    )

    @field_validator("modules", "apps", "worker_queues", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = tuple(dict.fromkeys(name for name in re.split(r"[,\s]+", value) if name))
        return () if names == ("none",) else names

    @field_validator("log_level", "log_format", "durability", "cluster", mode="before")
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


def variable(field: str) -> str:
    """The name of a field's variable."""
    return PREFIX + field.upper()


def extra(field: str) -> dict[str, Any]:
    """What a field says of itself: `expected`, `secret`."""
    found = Settings.model_fields[field].json_schema_extra
    assert isinstance(found, dict)
    return found
