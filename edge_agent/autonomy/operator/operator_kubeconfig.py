"""Writes the kubeconfig of the node's local operator."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

from edge_agent.autonomy.operator.operator_tokens import KeyUnavailable, Operator
from tunnel.aio.process.files import SECRET, write_atomic

DEFAULT = "operator.kubeconfig"
"""The name of the file in the state folder."""
CONTEXT = "this-node"


def write(path: Path, url: str, authority: Path, operator: Operator, token: str) -> None:
    """Writes it, for the owner of its folder alone. Blocks.

    Args:
        path: of the file.
        url: of the node's API proxy.
        authority: the file with the certificate that the proxy is known by.
        operator: who gets it.
        token: the token that it has.

    Raises:
        KeyUnavailable: it cannot be written, or there is no certificate yet.
    """
    # kubectl remembers what an API has by the name of its host: other kubeconfigs of the node have the address, and
    # see the cluster there.
    server = url.replace("//127.0.0.1:", "//localhost:")
    try:
        known_by = b64encode(authority.read_bytes()).decode()
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": known_by}}],
            "users": [{"name": operator.name, "user": {"token": token}}],
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": operator.name}}],
            "current-context": CONTEXT,
        }
        write_atomic(path, json.dumps(content, indent=1).encode() + b"\n", SECRET)  # JSON is YAML too
    except OSError as error:
        text = f"{error.filename or path}: {error.strerror}: has the agent run with [autonomy]?"
        raise KeyUnavailable(text) from error
