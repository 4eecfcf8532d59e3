"""What kube-apiserver asks a pod at the edge for: a webhook and an aggregated API, as manifests (see `backend/`)."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator

from tests.e2e.cluster import images, workloads
from tests.e2e.cluster.control_plane import ControlPlane
from tests.e2e.cluster.pki import ClusterPki
from tests.e2e.cluster.workloads import Manifest
from tests.support.kubectl_user import KubectlUser
from tests.support.tunnel import wait_until

NAMESPACE = "default"
PORT = 8443
CHECKED = "checked-by"
"""Label of the objects that a webhook is asked about; its value is the site's name."""
FORBIDDEN = "forbidden"
"""Label of those that it denies."""
KNOWN_S = 30.0
"""Until kube-apiserver knows that one has come or gone."""


class Backend:
    """One at a site."""

    def __init__(self, where: str, pki: ClusterPki) -> None:
        self.where = where
        self.name = f"backend-{where}"
        """Of its service, its pod and whatever else belongs to it."""
        self.group = f"{where}.longline.test"
        """Of its API."""
        self._pki = pki
        self._ca = _base64(pki.ca.read_bytes())

    def pod(self) -> Manifest:
        """The one behind the service."""
        run = {
            **workloads.container("backend", env=[{"name": "GROUP", "value": self.group}]),
            "image": images.BACKEND,
            "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
            "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
        }
        pod = workloads.pod(self.name, run, node=self.where, labels={"backend": self.where})
        pod["spec"]["volumes"] = [{"name": "tls", "secret": {"secretName": self.name}}]
        return pod

    def manifests(self) -> list[Manifest]:
        """All of it but the pod."""
        certificate, key = self._pki.issue(self.name, self.name, hosts=[f"{self.name}.{NAMESPACE}.svc"])
        files = {"tls.crt": certificate, "tls.key": key, "ca.crt": self._pki.ca}
        ports = [{"port": 443, "targetPort": PORT}]
        here = {"name": self.name, "namespace": NAMESPACE}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": here,
            "data": {name: _base64(path.read_bytes()) for name, path in files.items()},
        }
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": here,
            "spec": {"selector": {"backend": self.where}, "ports": ports},
        }
        return [secret, service, self._webhook(), self._api_service()]

    def kinds(self) -> list[str]:
        """All of it, as `kubectl delete` takes it; first what others would be asked for."""
        kinds = ("validatingwebhookconfiguration", "apiservice", "pod", "service", "secret")
        return [f"{kind}/{f'v1.{self.group}' if kind == 'apiservice' else self.name}" for kind in kinds]

    # Internal

    def _webhook(self) -> Manifest:
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
        service = {"name": self.name, "namespace": NAMESPACE, "path": "/validate"}
        webhook = {
            "name": f"validate.{self.group}",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"caBundle": self._ca, "service": service},
            "failurePolicy": "Fail",
            "objectSelector": {"matchLabels": {CHECKED: self.where}},
            "rules": [rule],
            "sideEffects": "None",
            "timeoutSeconds": 5,
        }
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": self.name},
            "webhooks": [webhook],
        }

    def _api_service(self) -> Manifest:
        return {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"v1.{self.group}"},
            "spec": {
                "group": self.group,
                "version": "v1",
                "service": {"name": self.name, "namespace": NAMESPACE, "port": 443},
                "caBundle": self._ca,
                "groupPriorityMinimum": 1000,
                "versionPriority": 10,
            },
        }


def create(user: KubectlUser, name: str, where: str, **labels: str) -> subprocess.CompletedProcess[bytes]:
    """Create an object that the webhook of a site is asked about."""
    metadata = {"name": name, "labels": {CHECKED: where, **labels}}
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    return user.run_kubectl("create", "-f", "-", stdin=json.dumps(manifest).encode())


def wait_until_asked(user: KubectlUser, backend: Backend) -> None:
    """Wait until the webhook is asked, and answers: kube-apiserver takes a moment to know of either."""

    def denied() -> bool:
        return f"{backend.name} forbids it".encode() in create(user, "x", backend.where, **{FORBIDDEN: ""}).stderr

    wait_until(denied, "the webhook is asked", KNOWN_S)


def available(user: KubectlUser, backend: Backend) -> bool:
    """Whether kube-apiserver reaches the API."""
    path = 'jsonpath={.status.conditions[?(@.type=="Available")].status}'
    return user.kubectl("get", "apiservice", f"v1.{backend.group}", "-o", path) == "True"


@contextlib.contextmanager
def backend(user: KubectlUser, where: str, control: ControlPlane) -> Iterator[Backend]:
    """One that is ready; nothing of it is left at the end."""
    made = Backend(where, control.pki)
    control.api.apply(*made.manifests(), made.pod())
    try:
        user.kubectl("wait", "pod", made.name, "--for=condition=Ready", "--timeout=30s", timeout_s=40)
        yield made
    finally:
        user.kubectl("delete", *made.kinds(), "--ignore-not-found")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
