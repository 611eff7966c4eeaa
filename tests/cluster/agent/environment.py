"""A container's environment, from its image, its pod, ConfigMaps and Secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.cluster.agent.api import Api, Object

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z0-9]+)\)")
_SUBSCRIPT = re.compile(r"(.+)\['(.+)'\]")


class ConfigMissing(Exception):
    """A ConfigMap, a Secret, or a key of one is not there (yet)."""


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the variable's value when there is one; `$$` is a dollar sign."""

    def replacement(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else known.get(match[1], match[0])

    return _REFERENCE.sub(replacement, text)


def pod_field(pod: Object, path: str) -> str:
    """A fieldRef of the downward API: `status.podIP`, `metadata.labels['app']`, all of `metadata.labels`."""
    subscript = _SUBSCRIPT.fullmatch(path)
    value: Any = pod
    for step in subscript[1].split(".") if subscript else path.split("."):
        value = value.get(step) or {}
    if subscript:
        return str(value.get(subscript[2], ""))
    if isinstance(value, dict):
        return "\n".join(f'{name}="{text}"' for name, text in value.items())
    return str(value)


def container_environment(api: Api, pod: Object, container: Object) -> dict[str, str]:
    """What `envFrom` and `env` say, later ones winning. Raises `ConfigMissing`, and what `Api` raises."""
    namespace = pod["metadata"]["namespace"]
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for key, kind in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if named := source.get(key):
                data = api.data(kind, namespace, named["name"], optional=named.get("optional", False))
                prefix = source.get("prefix", "")
                found |= {prefix + name: value.decode() for name, value in data.items()}
    for entry in container.get("env") or []:
        value = _value(api, pod, container, entry, found)
        if value is not None:
            found[entry["name"]] = value
    return found


def _value(api: Api, pod: Object, container: Object, entry: Object, known: Mapping[str, str]) -> str | None:
    origin = entry.get("valueFrom")
    if not origin:
        return expand(entry.get("value") or "", known)
    if named := origin.get("fieldRef"):
        return pod_field(pod, named["fieldPath"])
    if named := origin.get("resourceFieldRef"):
        return _resource(container, named["resource"], named.get("divisor", "1"))
    key = "secretKeyRef" if "secretKeyRef" in origin else "configMapKeyRef"
    named = origin[key]
    optional = named.get("optional", False)
    kind = "secrets" if key == "secretKeyRef" else "configmaps"
    data = api.data(kind, pod["metadata"]["namespace"], named["name"], optional=optional)
    if named["key"] in data:
        return data[named["key"]].decode()
    if optional:
        return None
    raise ConfigMissing(f"no key {named['key']} in {named['name']}")


_UNITS = {"m": 0.001, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def quantity(text: str) -> float:
    """`500m`, `256Mi`, `2`: as a number."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"not a quantity: {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def _resource(container: Object, path: str, divisor: str) -> str:
    """`limits.memory` in units of the divisor, rounded up as the kubelet does; 0 where there is none."""
    group, _, name = path.partition(".")
    said = (container.get("resources", {}).get(group) or {}).get(name)
    if said is None:
        return "0"
    per = quantity(divisor) if divisor != "0" else 1
    return str(int(-(-quantity(str(said)) // per)))
