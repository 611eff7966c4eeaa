"""The certificates of a cluster that lives for a day, made by openssl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

_DAYS = "2"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A certificate authority in a folder: NAME.crt and NAME.key."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.certificate, self.key = folder, folder / f"{name}.crt", folder / f"{name}.key"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-days", _DAYS, "-subj", f"/CN={name}"),
            *("-addext", "keyUsage=critical,digitalSignature,keyCertSign,cRLSign"),
            *("-keyout", self.key, "-out", self.certificate),
        )

    def issue(self, name: str, common_name: str, organization: str = "", names: Sequence[str] = ()) -> None:
        """Write name.crt and name.key, good for servers and clients.

        names: alternative names as openssl spells them, such as `DNS:localhost` and `IP:127.0.0.1`.
        """
        subject = (f"/O={organization}" if organization else "") + f"/CN={common_name}"
        certificate, key, request = (self.folder / f"{name}.{end}" for end in ("crt", "key", "csr"))
        extensions = ["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth"]
        if names:
            extensions.append("subjectAltName=" + ",".join(names))
        extension_file = self.folder / f"{name}.ext"
        extension_file.write_text("\n".join(extensions) + "\n", encoding="ascii")
        _openssl("req", "-new", *_NEW_KEY, "-subj", subject, "-keyout", key, "-out", request)
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial"),
            *("-days", _DAYS, "-extfile", extension_file, "-out", certificate),
        )
        request.unlink()
        extension_file.unlink()


def make_certificates(folder: Path, address: str) -> None:
    """Everything that the components need, into `folder`. address: the API server's."""
    folder.mkdir(parents=True)
    local = ["DNS:localhost", "IP:127.0.0.1"]
    authority = Authority(folder, "ca")
    authority.issue(
        "apiserver",
        "kube-apiserver",
        names=[
            *local,
            f"IP:{address}",
            "IP:10.0.0.1",
            "DNS:kubernetes.default",
            "DNS:kubernetes.default.svc",
        ],
    )
    authority.issue("component", "component", names=local)
    authority.issue("adapter", "prometheus-adapter", names=[*local, "DNS:prometheus-adapter.monitoring.svc"])
    authority.issue("admin", "admin", "system:masters")
    authority.issue("controllers", "system:kube-controller-manager")
    authority.issue("scheduler", "system:kube-scheduler")
    authority.issue("prometheus", "prometheus")
    # With the clients' own authority here, any client could pose as the aggregator and name its user.
    Authority(folder, "aggregator-ca").issue("aggregator", "aggregator")
    _openssl(
        "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", folder / "tokens.key"
    )
    _openssl("pkey", "-in", folder / "tokens.key", "-pubout", "-out", folder / "tokens.pub")


def write_kubeconfig(folder: Path, user: str, server: str) -> Path:
    """A kubeconfig for one of the certificates in `folder`; JSON, which is YAML."""
    path = folder / f"{user}.kubeconfig"
    cluster = {"server": server, "certificate-authority": str(folder / "ca.crt")}
    identity = {
        "client-certificate": str(folder / f"{user}.crt"),
        "client-key": str(folder / f"{user}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": user, "user": identity}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
        "current-context": "lab",
    }
    path.write_text(json.dumps(config), encoding="utf-8")
    path.chmod(0o600)
    return path


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")
