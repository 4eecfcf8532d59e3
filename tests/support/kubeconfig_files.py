"""What a kubeconfig holds, as other clients want it: PEM files for curl, an SSL context for Python."""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Kubeconfig = Mapping[str, Any]


def pem_files(config: Kubeconfig, folder: Path) -> tuple[Path, Path, Path]:
    """Write the CA, the client certificate and its key of a kubeconfig's first cluster and user into `folder`."""
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    paths = (folder / "ca.crt", folder / "client.crt", folder / "client.key")
    entries = (cluster["certificate-authority-data"], user["client-certificate-data"], user["client-key-data"])
    for path, entry in zip(paths, entries, strict=True):
        path.touch(0o600)
        path.write_bytes(base64.b64decode(entry))
    return paths


def client_context(config: Kubeconfig, *, certificate: bool = True) -> ssl.SSLContext:
    """A context that trusts what the kubeconfig trusts, and shows its certificate or none."""
    with tempfile.TemporaryDirectory() as folder:
        ca, shown, key = pem_files(config, Path(folder))
        context = ssl.create_default_context(cafile=str(ca))
        if certificate:
            context.load_cert_chain(shown, key)
    return context
