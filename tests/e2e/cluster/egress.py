"""The ways from kube-apiserver to what is on the nodes, through a cloud server: the files of `deploy/egress`."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.e2e.cluster.deploy import DEPLOY, filled
from tests.support.cluster import Cluster
from tests.support.kubeconfig_files import pem_files

USER = "kube-apiserver"
SOCKET = "/run/cloud-server/connect.sock"


def http_over_unix(cloud: Cluster) -> str:
    """HTTP CONNECT on the unix socket."""
    return _filled("http-over-unix", {SOCKET: cloud.unix_socket})


def grpc_over_unix(cloud: Cluster) -> str:
    """konnectivity's protocol on the unix socket."""
    return _filled("grpc-over-unix", {SOCKET: cloud.unix_socket})


def http_over_tls(cloud: Cluster, folder: Path) -> str:
    """HTTP CONNECT over TLS, as a user with a certificate, whose files are written to a folder."""
    folder.mkdir()
    ca, certificate, key = pem_files(yaml.safe_load(cloud.kubeconfig(USER).read_text()), folder)
    files = {"ca.crt": ca, "client.crt": certificate, "client.key": key}
    words: dict[str, object] = {f"/etc/kubernetes/longline/{name}": file for name, file in files.items()}
    return _filled("http-over-tls", {**words, "cloud.example.com:7444": f"127.0.0.1:{cloud.connect_port}"})


def _filled(name: str, words: dict[str, object]) -> str:
    return filled(DEPLOY / "egress" / f"{name}.yaml", {word: str(own) for word, own in words.items()})
