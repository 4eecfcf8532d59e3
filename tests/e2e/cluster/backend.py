"""What kube-apiserver asks a pod at the edge for: a webhook and an aggregated API, as manifests (see `backend/`)."""

from __future__ import annotations

import base64

from tests.e2e.cluster import images, workloads
from tests.e2e.cluster.pki import ClusterPki
from tests.e2e.cluster.workloads import Manifest

NAMESPACE = "default"
PORT = 8443
CHECKED = "checked-by"
"""Label of the objects that a webhook is asked about; its value is the site's name."""
FORBIDDEN = "forbidden"
"""Label of those that it denies."""


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


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
