"""Write the chart's values.schema.json and its README's table from values.yaml: one source for all three.

    .venv/bin/python scripts/chart/pages.py            write them
    .venv/bin/python scripts/chart/pages.py --check    fail if they differ

A comment above a key is its description. A line `# @schema {…}` in it is JSON Schema over what the default
says by itself: a map is an object of just these keys, a list an array, a scalar its type.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "callboard"
BEGIN, END = "<!-- values: written by scripts/chart/pages.py -->", "<!-- end of values -->"

# A null takes away what the defaults have.
_STRINGS = {"type": "object", "additionalProperties": {"type": ["string", "null"]}}
_LABELS = {
    "type": "object",
    "additionalProperties": {
        "type": ["string", "null"],
        "pattern": "^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$",
    },
}
_DNS = "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
# A host and a path: a scheme in front of it, as it stands in a browser, makes names that no kubelet pulls.
_PLACE = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?(/[A-Za-z0-9._-]+)*"
_PROBE = {
    "type": ["object", "null"],
    "properties": {
        **{handler: {"type": "object"} for handler in ("exec", "grpc", "httpGet", "tcpSocket")},
        **{
            field: {"type": "integer", "minimum": 0}
            for field in (
                "failureThreshold",
                "initialDelaySeconds",
                "periodSeconds",
                "successThreshold",
                "terminationGracePeriodSeconds",
                "timeoutSeconds",
            )
        },
    },
    "additionalProperties": False,
}
_SHARE = {"type": ["string", "integer", "null"], "minimum": 0, "pattern": "^[0-9]{1,3}%$"}
# What a limit that is misspelt would lift is refused by its name.
_AMOUNTS = {
    "type": ["object", "null"],
    "propertyNames": {
        "pattern": "^(cpu|memory|ephemeral-storage|hugepages-[0-9]+[KMG]i|[a-z0-9.-]+/[A-Za-z0-9._-]+)$"
    },
    "additionalProperties": {
        "type": ["string", "number", "null"],
        "minimum": 0,
        "pattern": "^[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$",
    },
}
DEFINITIONS: dict[str, Any] = {
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "disruption": {
        "description": "Never 0: it would block every node drain.",
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": "^[1-9][0-9]?%$|^100%$"},
        ],
    },
    "env": {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {
            "anyOf": [
                {"type": ["string", "number", "boolean", "null"]},
                {
                    "type": "object",
                    "properties": {"valueFrom": {"type": "object"}},
                    "required": ["valueFrom"],
                    "additionalProperties": False,
                },
            ]
        },
    },
    "key": {"type": "string", "pattern": "^[A-Za-z0-9._-]+$"},
    "labels": _LABELS,
    "name": {"type": "string", "pattern": f"^{_DNS}$"},
    "optional": {"type": ["object", "null"]},
    "optionalName": {"type": "string", "pattern": f"^({_DNS})?$"},
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "probes": {
        "type": "object",
        "properties": dict.fromkeys(("startup", "readiness", "liveness"), _PROBE),
        "additionalProperties": False,
    },
    "quantity": {
        "type": ["string", "integer"],
        "minimum": 0,
        "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$",
    },
    "registry": {"type": "string", "pattern": f"^({_PLACE}/?)?$"},
    "repository": {"type": "string", "pattern": f"^{_PLACE}$"},
    "resources": {
        "type": "object",
        "properties": {"requests": _AMOUNTS, "limits": _AMOUNTS, "claims": {"type": "array"}},
        "additionalProperties": False,
    },
    "spread": {"enum": ["preferred", "required", "none"]},
    "strategy": {
        "type": "object",
        "properties": {
            "type": {"enum": ["RollingUpdate", "Recreate"]},
            "rollingUpdate": {
                "type": ["object", "null"],
                "properties": dict.fromkeys(("maxSurge", "maxUnavailable"), _SHARE),
                "additionalProperties": False,
            },
        },
        "additionalProperties": False,
    },
    "strings": _STRINGS,
    "tag": {"type": "string", "pattern": "^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$"},
}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


class Values:
    """values.yaml with the comments of its keys, by dotted path."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.defaults: dict[str, Any] = yaml.safe_load(text)
        self.descriptions: dict[str, str] = {}
        self.overrides: dict[str, dict[str, Any]] = {}
        self._read(text)

    def _read(self, text: str) -> None:
        comment: list[str] = []
        parents: list[tuple[int, str]] = []
        for number, line in enumerate(text.splitlines(), 1):
            stripped = line.strip()
            if not stripped or stripped.startswith("# ---"):
                comment = []
            elif stripped.startswith("#"):
                comment.append(stripped[1:].strip())
            elif match := re.match(r"( *)([A-Za-z][A-Za-z0-9]*):", line):
                depth = len(match[1])
                parents = [parent for parent in parents if parent[0] < depth]
                parents.append((depth, match[2]))
                key = ".".join(name for _, name in parents)
                for part in comment:
                    if part.startswith("@schema "):
                        try:
                            self.overrides[key] = json.loads(part.removeprefix("@schema "))
                        except ValueError as error:
                            raise SystemExit(
                                f"{CHART.name}/values.yaml:{number}: @schema of {key}: {error}"
                            ) from error
                text_of = " ".join(part for part in comment if not part.startswith("@schema "))
                if text_of:
                    self.descriptions[key] = text_of
                comment = []

    def schema(self) -> dict[str, Any]:
        """The whole of values.schema.json."""
        root = self._object("", self.defaults)
        # An umbrella chart keeps more than ours under `global`; Helm hands all of it down.
        root["properties"]["global"]["additionalProperties"] = True
        for path, successor in removed().items():
            self._permit(root, path.split("."), f"Not a value of this chart; use {successor}.")
        worker_set = self._object("workerDefaults", self.defaults["workerDefaults"], with_defaults=False)
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "Values of the chart callboard",
            "description": "Written by scripts/chart/pages.py from values.yaml.",
            **root,
            "$defs": {**DEFINITIONS, "workerSet": {**worker_set, "type": ["object", "null"]}},
        }

    def _permit(self, node: dict[str, Any], path: list[str], description: str) -> None:
        """A key that is refused by a template, which can name its successor, instead of by the schema."""
        for name in path[:-1]:
            node = node["properties"][name]
        node["properties"][path[-1]] = {"description": description}

    def _object(self, path: str, value: dict[str, Any], *, with_defaults: bool = True) -> dict[str, Any]:
        properties = {}
        for key, default in value.items():
            properties[key] = self._node(f"{path}.{key}".lstrip("."), default, with_defaults)
        # A null takes a key away, and templates read these: they would fail with a riddle, or render no port.
        needed = sorted(
            key for key, default in value.items() if with_defaults and self._needed(path, key, default)
        )
        return {
            "type": "object",
            "properties": properties,
            **({"required": needed} if needed else {}),
            "additionalProperties": False,
        }

    def _needed(self, path: str, key: str, default: Any) -> bool:
        """Whether there must be a value: a section, number or switch, or a text or list that is not empty."""
        override = self.overrides.get(f"{path}.{key}".lstrip("."), {})
        if isinstance(default, dict):
            return not override or override.get("$ref") == "#/$defs/strategy"
        if "null" in override.get("type", ()):
            return False
        return default not in (None, "", [])

    def _node(self, path: str, default: Any, with_defaults: bool) -> dict[str, Any]:
        override = self.overrides.get(path, {})
        described = {"description": self.descriptions[path]} if path in self.descriptions else {}
        if "$ref" in override:
            # Draft 7 ignores what stands beside a $ref.
            return {**described, "allOf": [override]}
        if isinstance(default, dict):
            if override:
                return {**described, "type": "object", **override}
            return {**described, **self._object(path, default, with_defaults=with_defaults)}
        if isinstance(default, list):
            return {**described, "type": "array", **override}
        if "enum" in override:
            return {**described, **override}
        shown = {"default": default} if with_defaults else {}
        return {**described, "type": _TYPES[type(default)], **shown, **override}

    def table(self) -> str:
        """The rows of the README: every key with a default of its own."""
        lines = ["| Value | Default | What it is |", "|-|-|-|"]
        for path, default in self._rows("", self.defaults):
            shown = json.dumps(default, ensure_ascii=False)
            text = self.descriptions[path].replace("|", "\\|")
            if names := self.overrides.get(path, {}).get("enum"):
                text += f" One of {', '.join(f'`{name}`' for name in names)}."
            lines.append(f"| `{path}` | `{shown}` | {text} |")
        return "\n".join(lines)

    def _rows(self, path: str, value: dict[str, Any]) -> list[tuple[str, Any]]:
        rows = []
        for key, default in value.items():
            here = f"{path}.{key}".lstrip(".")
            if isinstance(default, dict) and default and here not in self.overrides:
                rows += self._rows(here, default)
            else:
                rows.append((here, default))
        return rows

    def undescribed(self) -> list[str]:
        """Keys without a comment, which the table could say nothing about."""
        return [path for path, _ in self._rows("", self.defaults) if path not in self.descriptions]


def removed() -> dict[str, str]:
    """Keys that the chart does not have (any more), and what takes their place."""
    loaded: dict[str, str] = json.loads((CHART / "files" / "removed.json").read_text(encoding="utf-8"))
    return loaded


def pages() -> dict[Path, str]:
    """What is written, by path."""
    values = Values(CHART / "values.yaml")
    if silent := values.undescribed():
        raise SystemExit(f"values.yaml: no comment above {', '.join(silent)}")
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return {
        CHART / "values.schema.json": json.dumps(values.schema(), indent=2, ensure_ascii=False) + "\n",
        CHART / "README.md": f"{before}{BEGIN}\n\n{values.table()}\n\n{END}{after}",
    }


def main(arguments: list[str]) -> int:
    """Write, or with --check compare; 1 when something differs."""
    stale = []
    for path, text in pages().items():
        if arguments == ["--check"]:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"{', '.join(stale)} differ from values.yaml: run scripts/chart/pages.py")
    return bool(stale)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
