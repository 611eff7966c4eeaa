"""Images: a name and the local program that stands for it.

Nothing is pulled. The file that the agent gets is JSON, an object by repository name without registry and
tag: `entrypoint` and `command` (lists), `user` and `group` (numbers), `folder` (to work in), `environment`
(object), `mounts` (list of [source, target, ro|rw]).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """What an image says about its containers."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: int = 0
    group: int = 0
    folder: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[tuple[str, str, str], ...] = ()

    def argv(self, container: Mapping[str, list[str]]) -> list[str]:
        """What runs: a container's `command` replaces both of the image's, its `args` the image's command."""
        head = container.get("command") or list(self.entrypoint)
        rest = container.get("args")
        if rest is None:
            rest = [] if container.get("command") else list(self.command)
        return [*head, *rest]


class Images:
    """All images that exist."""

    def __init__(self, file: Path) -> None:
        self._images = {
            name: Image(
                tuple(said.get("entrypoint", ())),
                tuple(said.get("command", ())),
                said.get("user", 0),
                said.get("group", 0),
                said.get("folder", "/"),
                said.get("environment", {}),
                tuple((source, target, mode) for source, target, mode in said.get("mounts", ())),
            )
            for name, said in json.loads(file.read_text(encoding="utf-8")).items()
        }

    def find(self, reference: str) -> Image | None:
        """By registry/repository:tag@digest, whatever the registry; None when there is no such image."""
        repository = reference.partition("@")[0]
        head, colon, tail = repository.rpartition(":")
        if colon and "/" not in tail:  # a tag, and not the port of a registry
            repository = head
        for name, image in self._images.items():
            if repository == name or repository.endswith(f"/{name}"):
                return image
        return None
