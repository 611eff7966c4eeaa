"""The settings from the environment; nothing else reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from callboard.errors import InvalidSetting, nearest
from callboard.settings.model import PREFIX, Settings, extra, variable

# A Service called `callboard` or `callboard-…` makes Kubernetes (and Docker's links) inject these
# into every pod of the namespace. They are nobody's settings.
_LINK_NAME = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$|_ENV_[A-Z0-9_]+$"
)
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


def load(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `env`, by default the process environment.

    An empty value counts as unset. Raises InvalidSetting, whose message has a line for each fault.
    """
    source = os.environ if env is None else env
    known = {variable(field): field for field in Settings.model_fields}
    secret_files = {f"{name}_FILE": name for name, field in known.items() if extra(field)["secret"]}
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


def kubernetes_address(env: Mapping[str, str] | None = None) -> str | None:
    """Where the API server of the cluster is that this process runs in; None outside of one."""
    source = os.environ if env is None else env
    host, port = source.get("KUBERNETES_SERVICE_HOST"), source.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        return None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


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
            known = extra(field)
            got = "a value that is not shown" if known["secret"] else repr(values[field])
            faults.append(f"{variable(field)}: expected {known['expected']}; got {got}.")
    else:
        if not faults:
            return settings
    raise InvalidSetting("\n".join(dict.fromkeys(faults)))


def _is_link(name: str, value: str) -> bool:
    return _LINK_NAME.search(name) is not None or (
        name.endswith("_PORT") and _LINK_VALUE.match(value) is not None
    )


def _read_secret(path: str) -> str:
    text = Path(path).read_text(encoding="utf-8").strip()
    if not text:
        raise ValueError("it is empty")
    return text
