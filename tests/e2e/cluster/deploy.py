"""What `deploy/` gives to people, with the names of a test in the places of its examples."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from tests.support.kubectl_user import KubectlUser
from tests.support.tunnel import wait_until

DEPLOY = Path(__file__).parents[3] / "deploy"
BESIDE = DEPLOY / "beside-apiserver"
OVERLAYS = DEPLOY / "kustomize" / "overlays"
NAMESPACE = "longline"
TOKEN = "cloud-server-token"
TOKEN_S = 20.0


def filled(file: Path, words: Mapping[str, str]) -> str:
    """A file of `deploy/` with each of some words replaced, all of which it has."""
    text = file.read_text()
    for word, own in words.items():
        assert word in text, f"{file} has no {word}"
        text = text.replace(word, own)
    return text


def account(admin: KubectlUser, server: str, folder: Path) -> Path:
    """Make the cloud server's account in a cluster; returns its kubeconfig.

    Args:
        admin: Who may do that.
        server: The URL of the API server.
        folder: For the kubeconfig, the account's token and the cluster's authority.
    """
    admin.kubectl("apply", "-k", str(OVERLAYS / "beside-apiserver"))
    files = {"kubernetes.token": r"token", "kubernetes.ca.crt": r"ca\.crt"}
    for name, key in files.items():
        ask = ("get", "secret", TOKEN, "-n", NAMESPACE, "-o", f"jsonpath={{.data.{key}}}")
        wait_until(lambda ask=ask: bool(admin.kubectl(*ask)), f"{TOKEN} has its {key}", TOKEN_S)  # type: ignore[misc]
        (folder / name).write_bytes(base64.b64decode(admin.kubectl(*ask)))
    words = {f"/var/lib/cloud-server/{name}": str(folder / name) for name in files}
    own = folder / "kubernetes.kubeconfig"
    own.write_text(filled(BESIDE / own.name, {**words, "https://192.0.2.10:6443": server}))
    return own
