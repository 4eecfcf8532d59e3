"""EgressSelectorConfigurations: the ways from kube-apiserver to what is on the nodes, through a cloud server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster import Cluster
from tests.support.kubeconfig_files import pem_files

USER = "kube-apiserver"


def http_over_unix(cloud: Cluster) -> str:
    """HTTP CONNECT on the unix socket."""
    return _selector("HTTPConnect", {"uds": {"udsName": str(cloud.unix_socket)}})


def grpc_over_unix(cloud: Cluster) -> str:
    """konnectivity's protocol on the unix socket."""
    return _selector("GRPC", {"uds": {"udsName": str(cloud.unix_socket)}})


def http_over_tls(cloud: Cluster, folder: Path) -> str:
    """HTTP CONNECT over TLS, as a user with a certificate, whose files are written to a folder."""
    folder.mkdir()
    ca, certificate, key = pem_files(yaml.safe_load(cloud.kubeconfig(USER).read_text()), folder)
    tls = {"caBundle": str(ca), "clientCert": str(certificate), "clientKey": str(key)}
    return _selector("HTTPConnect", {"tcp": {"url": f"https://127.0.0.1:{cloud.connect_port}", "tlsConfig": tls}})


def _selector(protocol: str, transport: dict[str, Any]) -> str:
    connection = {"proxyProtocol": protocol, "transport": transport}
    content = {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": connection}],
    }
    return json.dumps(content, indent=1)  # which is YAML too
