"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler, for this machine and its pods only."""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path

from tests.cluster.lab.certificates import make_certificates, write_kubeconfig
from tests.cluster.lab.components import Components
from tests.cluster.lab.tools import Tools
from tests.support.ports import free_port
from tests.support.waiting import wait_until

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # What pods may do is proven from what they did: see test_rights.
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


class ControlPlane:
    """Boots in some five seconds. Everything that it keeps is in one folder."""

    def __init__(self, tools: Tools, folder: Path, components: Components, address: str) -> None:
        """address: where the API server listens, for pods as well as for this machine."""
        self._tools, self._components, self._address = tools, components, address
        self.folder, self.certificates = folder, folder / "certificates"
        self.audit_log = folder / "audit.log"
        self.port = free_port()
        self._etcd, self._etcd_peer, self._controllers, self._scheduler = (free_port() for _ in range(4))

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self._address}:{self.port}"

    def kubeconfig(self, user: str) -> Path:
        """A kubeconfig of `admin`, `controllers`, `scheduler`, `adapter` or `prometheus`."""
        return write_kubeconfig(self.certificates, user, self.server)

    def boot(self) -> None:
        """Start all four and wait until each is ready."""
        make_certificates(self.certificates, self._address)
        self._start_etcd()
        self._start_apiserver()
        self.wait_for_the_api_server(120)
        self._start_controllers()
        self._start_scheduler()
        self._wait_for_the_controllers()

    def wait_for_the_api_server(self, timeout_seconds: float) -> None:
        """Until /readyz says ok."""
        self._wait(f"{self.server}/readyz", timeout_seconds)

    def restart_controllers(self) -> None:
        """What becomes of them in an outage of the API server: without their leases they end, and begin anew.

        Here they hold none, and would look for it less and less often, in the end after more than a minute.
        """
        for name in ("kube-controller-manager", "kube-scheduler"):
            self._components.stop(name)
            self._components.start(name)
        self._wait_for_the_controllers()

    def _wait_for_the_controllers(self) -> None:
        for port, path in ((self._controllers, "healthz"), (self._scheduler, "readyz")):
            self._wait(f"https://127.0.0.1:{port}/{path}", 60)

    def _start_etcd(self) -> None:
        peer, client = f"http://127.0.0.1:{self._etcd_peer}", f"https://127.0.0.1:{self._etcd}"
        self._components.add(
            "etcd",
            self._tools.program("etcd"),
            "--unsafe-no-fsync",
            "--client-cert-auth",
            flags={
                "name": "lab",
                "data-dir": self.folder / "etcd",
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": f"lab={peer}",
                "cert-file": self.certificates / "component.crt",
                "key-file": self.certificates / "component.key",
                "trusted-ca-file": self.certificates / "ca.crt",
            },
        )

    def _start_apiserver(self) -> None:
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(_AUDIT_POLICY), encoding="utf-8")
        certificates = self.certificates
        self._components.add(
            "kube-apiserver",
            self._tools.program("kube"),
            "kube-apiserver",
            flags={
                "bind-address": self._address,
                "advertise-address": self._address,
                "secure-port": self.port,
                "service-cluster-ip-range": "10.0.0.0/16",
                "authorization-mode": "Node,RBAC",
                "audit-policy-file": policy,
                "audit-log-path": self.audit_log,
                "etcd-servers": f"https://127.0.0.1:{self._etcd}",
                "etcd-cafile": certificates / "ca.crt",
                "etcd-certfile": certificates / "admin.crt",
                "etcd-keyfile": certificates / "admin.key",
                "client-ca-file": certificates / "ca.crt",
                "tls-cert-file": certificates / "apiserver.crt",
                "tls-private-key-file": certificates / "apiserver.key",
                "service-account-key-file": certificates / "tokens.pub",
                "service-account-signing-key-file": certificates / "tokens.key",
                "service-account-issuer": "https://kubernetes.default.svc",
                "requestheader-client-ca-file": certificates / "aggregator-ca.crt",
                "requestheader-allowed-names": "aggregator",
                "requestheader-username-headers": "X-Remote-User",
                "requestheader-group-headers": "X-Remote-Group",
                "requestheader-extra-headers-prefix": "X-Remote-Extra-",
                "proxy-client-cert-file": certificates / "aggregator.crt",
                "proxy-client-key-file": certificates / "aggregator.key",
            },
        )

    def _start_controllers(self) -> None:
        self._components.add(
            "kube-controller-manager",
            self._tools.program("kube"),
            "kube-controller-manager",
            flags={
                **self._component("controllers", self._controllers),
                "use-service-account-credentials": "true",
                "service-account-private-key-file": self.certificates / "tokens.key",
                "root-ca-file": self.certificates / "ca.crt",
                # The proofs look at what the autoscaler decides, not at how long it sleeps between decisions.
                "horizontal-pod-autoscaler-sync-period": "2s",
                "horizontal-pod-autoscaler-initial-readiness-delay": "2s",
                "horizontal-pod-autoscaler-cpu-initialization-period": "2s",
                "node-monitor-grace-period": "20s",
            },
        )

    def _start_scheduler(self) -> None:
        self._components.add(
            "kube-scheduler",
            self._tools.program("kube"),
            "kube-scheduler",
            flags=self._component("scheduler", self._scheduler),
        )

    def _component(self, user: str, port: int) -> dict[str, object]:
        config = self.kubeconfig(user)
        return {
            "bind-address": "127.0.0.1",
            "secure-port": port,
            "leader-elect": "false",
            "kubeconfig": config,
            "authentication-kubeconfig": config,
            "authorization-kubeconfig": config,
            "tls-cert-file": self.certificates / "component.crt",
            "tls-private-key-file": self.certificates / "component.key",
        }

    def _wait(self, url: str, timeout_seconds: float) -> None:
        context = ssl.create_default_context(cafile=str(self.certificates / "ca.crt"))
        context.load_cert_chain(self.certificates / "admin.crt", self.certificates / "admin.key")

        def answers() -> bool:
            self._components.complain_about_the_dead()
            try:
                with urllib.request.urlopen(url, timeout=2, context=context) as reply:
                    return reply.status == 200
            except OSError:
                return False

        wait_until(answers, timeout_seconds, f"{url} answers", poll=0.1)
