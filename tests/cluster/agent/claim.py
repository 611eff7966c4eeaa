"""Claims of volumes: each gets a folder of this machine, as a provisioner on one node would give it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster.agent.api import Api, Object, Refused
from tests.cluster.agent.node import following

CLASS = "local-folder"
_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
_VOLUMES = "/api/v1/persistentvolumes"


class Claims:
    """Provisions for the default StorageClass, which it creates; deletes a volume whose claim is gone."""

    def __init__(self, api: Api, folder: Path) -> None:
        self._api, self._folder = api, folder

    def register(self) -> None:
        """Create the StorageClass, the default one."""
        meta = {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
        body = {"metadata": meta, "provisioner": "callboard.invalid/local-folder", "reclaimPolicy": "Retain"}
        try:
            self._api.create(_CLASSES, body)
        except Refused as refusal:
            if refusal.status != 409:
                raise

    def run(self) -> None:
        """Follow claims for ever."""
        for kind, seen in following(self._api, "/api/v1/persistentvolumeclaims"):
            if kind == "LISTED":
                for claim in seen:
                    self._provision(claim)
            elif kind == "DELETED":
                self._remove(seen)
            else:
                self._provision(seen)

    def _provision(self, claim: Object) -> None:
        spec, meta = claim["spec"], claim["metadata"]
        if spec.get("storageClassName") != CLASS or spec.get("volumeName"):
            return
        owner = {key: meta[key] for key in ("namespace", "name", "uid")}
        volume = {
            "metadata": {"name": f"folder-{meta['uid']}"},
            "spec": {
                "capacity": spec["resources"]["requests"],
                "accessModes": spec["accessModes"],
                "storageClassName": CLASS,
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(self._folder / meta["uid"])},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **owner},
            },
        }
        try:
            self._api.create(_VOLUMES, volume)
        except Refused as refusal:
            if refusal.status != 409:  # it was made before, and is bound in a moment
                print(f"claim {meta['namespace']}/{meta['name']}: {refusal}", flush=True)

    def _remove(self, claim: Object) -> None:
        uid = claim["metadata"]["uid"]
        self._api.delete(f"{_VOLUMES}/folder-{uid}")
        shutil.rmtree(self._folder / uid, ignore_errors=True)
