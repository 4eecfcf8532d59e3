"""Writes a cluster, a user and a context into a kubeconfig that may have others, as `kubectl config` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunnel.aio.process.files import SECRET, write_atomic
from tunnel.tool.kubeconfig import KubeconfigUnusable, read_file


def check_context(path: Path, name: str, server: str) -> None:
    """Makes sure that a context may be written for a server.

    Raises:
        KubeconfigUnusable: the file is no kubeconfig, or has a cluster of the name for another server.
    """
    found = read_file(path) if path.exists() else {}
    cluster = next((one for one in found.get("clusters") or () if one.get("name") == name), None)
    if cluster is not None and cluster.get("cluster", {}).get("server") != server:
        text = f"{path} has a cluster {name} for another server: give this one another name with --context"
        raise KubeconfigUnusable(text)


def write_context(path: Path, made: dict[str, Any]) -> None:
    """Writes the entries of a kubeconfig into a file, and makes its context the current one.

    Args:
        path: of the file, which is made when it is not there.
        made: a kubeconfig with one context.

    Raises:
        KubeconfigUnusable: the file is no kubeconfig, has a cluster of the name for another server, or cannot be
            written.
    """
    import yaml

    name = made["current-context"]
    check_context(path, name, made["clusters"][0]["cluster"]["server"])
    found = read_file(path) if path.exists() else {}
    merged = {"apiVersion": "v1", "kind": "Config", **found, "current-context": name}
    for kind in ("clusters", "users", "contexts"):
        ours = {one["name"] for one in made[kind]}
        merged[kind] = [one for one in found.get(kind) or () if one.get("name") not in ours] + made[kind]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, yaml.safe_dump(merged, sort_keys=False).encode(), SECRET)
    except OSError as error:
        raise KubeconfigUnusable(f"{path} cannot be written: {error.strerror}") from error
