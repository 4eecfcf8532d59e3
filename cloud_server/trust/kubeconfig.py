"""Makes a kubeconfig for the fleet API, with everything inside: where, whom to trust, and the user's certificate and
key.
"""

from __future__ import annotations

import base64
from typing import Any

import yaml

from cloud_server.trust.ca import Issued

CONTEXT = "longline"
EXTENSION = "longline"
"""The name of the cluster's extension; kubectl keeps it and asks no more. `tunnel/tool/kubeconfig.py` reads it."""


def kubeconfig(server: str, ca_pem: bytes, user: str, issued: Issued, connect: str = "") -> str:
    """Returns the text of the file.

    Args:
        server: URL of the fleet API.
        ca_pem: authority that its certificate is checked against.
        user: name shown for the user.
        issued: the user's certificate and key.
        connect: `HOST:PORT` of the CONNECT listener, for the `longline` command; empty when there is none.
    """
    cluster: dict[str, Any] = {"server": server, "certificate-authority-data": _base64(ca_pem)}
    if connect:
        cluster["extensions"] = [{"name": EXTENSION, "extension": {"connect": connect}}]
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _base64(issued.certificate_pem),
                    "client-key-data": _base64(issued.key_pem),
                },
            }
        ],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user}}],
        "current-context": CONTEXT,
    }
    return yaml.safe_dump(config, sort_keys=False)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
