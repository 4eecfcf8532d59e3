"""The cluster's certificates and kubeconfigs: who is who among its parts."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterable
from pathlib import Path

import yaml

from tests.support.pki import Authority

VALID = dt.timedelta(days=9)
CONTEXT = "e2e"
MASTERS = "system:masters"


class ClusterPki:
    """One authority, and a folder with what it has issued."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._authority = Authority("longline test cluster")
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(self._authority.pem)
        self.ca_key = folder / "ca.key"
        self.ca_key.write_bytes(self._authority.itself().key_pem)

    def issue(
        self, file: str, common_name: str, *, group: str = "", hosts: Iterable[str] = (), into: Path | None = None,
        ends_in: dt.timedelta = VALID,
    ) -> tuple[Path, Path]:  # fmt: skip
        """Issue a certificate for both ends of TLS.

        Args:
            file: Name of the two files, without what comes after the dot.
            common_name: The Kubernetes user.
            group: The user's group.
            hosts: DNS names and addresses that it serves as.
            into: The folder for the two files; None: the authority's own.
            ends_in: When it ends, from now.

        Returns:
            The paths of the certificate and its key.
        """
        issued = self._authority.issue(common_name=common_name, organization=group, hosts=hosts, ends_in=ends_in)
        return issued.write(into or self.folder, file)

    def kubeconfig(self, path: Path, server: str, common_name: str, *, group: str = "") -> Path:
        """Write a kubeconfig with a new certificate, all in one file."""
        issued = self._authority.issue(common_name=common_name, organization=group, ends_in=VALID)
        cluster = {"server": server, "certificate-authority-data": _base64(self.ca.read_bytes())}
        user = {
            "client-certificate-data": _base64(issued.certificate_pem),
            "client-key-data": _base64(issued.key_pem),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": CONTEXT, "cluster": cluster}],
            "users": [{"name": common_name, "user": user}],
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": common_name}}],
            "current-context": CONTEXT,
        }
        path.write_text(yaml.safe_dump(content))
        path.chmod(0o600)
        return path


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
