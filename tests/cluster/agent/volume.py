"""A pod's volumes, as folders of this machine: claims, empty ones, and what the API server knows."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cluster.agent.api import Api, Object
from tests.cluster.agent.environment import ConfigMissing, pod_field


class Volumes:
    """The volumes of one pod. Made on first use, below `folder`; a claim's lies where the claim was bound."""

    def __init__(self, api: Api, pod: Object, folder: Path) -> None:
        self._api, self._pod, self._folder = api, pod, folder
        self._namespace = pod["metadata"]["namespace"]

    def mounts(self, container: Object) -> list[str]:
        """SOURCE TARGET ro|rw for each of the container's mounts. Raises as `source` does."""
        found: list[str] = []
        for mount in container.get("volumeMounts") or []:
            source = self.source(mount["name"])
            if below := mount.get("subPath"):
                source /= below
                if not source.exists():
                    source.mkdir(parents=True)
            found += [str(source), mount["mountPath"], "ro" if mount.get("readOnly") else "rw"]
        return found

    def source(self, name: str) -> Path:
        """The volume's folder. Raises `ConfigMissing`, and what `Api` raises, while it cannot be made."""
        volume = next(v for v in self._pod["spec"]["volumes"] if v["name"] == name)
        if claim := volume.get("persistentVolumeClaim"):
            return self._claimed(claim["claimName"])
        path = self._folder / name
        if path.exists():
            return path
        files = {} if "emptyDir" in volume else self._files(volume)
        # Last, so that what was missing is looked for again.
        path.mkdir(parents=True)
        if "emptyDir" in volume:
            path.chmod(0o777)
        for file, content in files.items():
            target = path / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return path

    def _claimed(self, name: str) -> Path:
        claim = self._api.get(f"/api/v1/namespaces/{self._namespace}/persistentvolumeclaims/{name}")
        bound = claim["spec"].get("volumeName")
        if claim["status"].get("phase") != "Bound" or not bound:
            raise ConfigMissing(f"claim {name} is not bound")
        volume = self._api.get(f"/api/v1/persistentvolumes/{bound}")
        path = Path(volume["spec"]["hostPath"]["path"])
        path.mkdir(parents=True, exist_ok=True)
        if group := (self._pod["spec"].get("securityContext") or {}).get("fsGroup"):
            os.chown(path, -1, group)
            path.chmod(0o2775)
        return path

    def _files(self, volume: Object) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for source in volume.get("projected", {}).get("sources") or [volume]:
            if token := source.get("serviceAccountToken"):
                files[token["path"]] = self._token(token)
            for item in source.get("downwardAPI", {}).get("items") or []:
                files[item["path"]] = pod_field(self._pod, item["fieldRef"]["fieldPath"]).encode()
            for key, kind in (("configMap", "configmaps"), ("secret", "secrets")):
                if named := source.get(key):
                    files |= self._data(kind, named)
        return files

    def _data(self, kind: str, named: Object) -> dict[str, bytes]:
        name = named.get("name") or named["secretName"]
        data = self._api.data(kind, self._namespace, name, optional=named.get("optional", False))
        items = named.get("items")
        if items is None:
            return data
        if missing := [item["key"] for item in items if item["key"] not in data]:
            if named.get("optional"):
                return {item["path"]: data[item["key"]] for item in items if item["key"] in data}
            raise ConfigMissing(f"no key {missing[0]} in {name}")
        return {item["path"]: data[item["key"]] for item in items}

    def _token(self, wanted: Object) -> bytes:
        account = self._pod["spec"]["serviceAccountName"]
        reply = self._api.create(
            f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "expirationSeconds": wanted.get("expirationSeconds", 3600),
                    "audiences": [wanted["audience"]] if wanted.get("audience") else [],
                },
            },
        )
        return reply["status"]["token"].encode()
