"""An aggregated API in this process: lists without versions, as those of metrics are, and no watches."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.e2e.cluster.api_server import ApiServer
from tests.e2e.cluster.pki import ClusterPki
from tests.support.tunnel import wait_until

NAME = "measures"
GROUP = "measures.longline.test"
KNOWN_S = 30.0
"""Until kube-apiserver takes it to be available."""

Json = dict[str, Any]


@contextlib.contextmanager
def aggregated_api(api: ApiServer, pki: ClusterPki) -> Iterator[None]:
    """It, known to an API server; nothing of it is left at the end."""
    certificate, key = pki.issue(NAME, NAME, hosts=[f"{NAME}.default.svc"])
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, name=NAME)
        thread.start()
        try:
            api.apply(*_manifests(server.server_port, pki))
            path = 'jsonpath={.status.conditions[?(@.type=="Available")].status}'
            wait_until(
                lambda: api.kubectl("get", "apiservice", f"v1.{GROUP}", "-o", path) == "True",
                "it is available",
                KNOWN_S,
            )
            yield
        finally:
            api.kubectl("delete", f"apiservice/v1.{GROUP}", f"service/{NAME}")
            server.shutdown()
            thread.join()


# Internal


def _manifests(port: int, pki: ClusterPki) -> list[Json]:
    where = {"name": NAME, "namespace": "default"}
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": where,
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
    }  # fmt: skip
    known = {
        "group": GROUP, "version": "v1", "service": {**where, "port": port}, "groupPriorityMinimum": 1000,
        "versionPriority": 10, "caBundle": base64.b64encode(pki.ca.read_bytes()).decode(),
    }  # fmt: skip
    kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
    return [service, {**kind, "metadata": {"name": f"v1.{GROUP}"}, "spec": known}]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == f"/apis/{GROUP}/v1":
            resource = {"name": NAME, "singularName": "", "kind": "Measure", "namespaced": False, "verbs": ["list"]}
            said: Json = {"kind": "APIResourceList", "groupVersion": f"{GROUP}/v1", "resources": [resource]}
        else:
            items = [{"metadata": {"name": "one"}, "value": 7}]
            said = {"kind": "MeasureList", "apiVersion": f"{GROUP}/v1", "metadata": {}, "items": items}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_args: object) -> None:
        """Say nothing of it."""
