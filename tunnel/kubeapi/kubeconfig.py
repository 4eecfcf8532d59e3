"""Makes a kubeconfig with everything inside: the server, whom to trust, and what the user shows."""

from __future__ import annotations

import base64
from typing import Any

CONTEXT = "longline"
EXTENSION = "longline"
"""The name of the cluster's extension, which kubectl keeps and ignores: {"connect": "host:port"} says where the CONNECT
listener is."""
EXEC_API = "client.authentication.k8s.io/v1"
"""The API of credential plugins (https://kubernetes.io/docs/reference/config-api/client-authentication.v1/)."""
PLUGIN = "credential"
"""The command of `longline` that is a credential plugin."""
BY_ISSUER = "--oidc"
"""The option of that command for an ID token in place of a certificate."""
LOGIN = "LONGLINE_LOGIN"
"""The variable in which that command finds the login: not in its arguments, which everybody on the machine can read."""


def kubeconfig(server: str, ca_pem: bytes, user: str, shown: dict[str, Any], connect: str = "") -> str:
    """Returns the text of a kubeconfig.

    Args:
        server: the URL of the API.
        ca_pem: the authority that its certificate is checked against; empty for those that the system trusts.
        user: the name of the user.
        shown: what the user shows, as the entry of a user has it.
        connect: HOST:PORT of the CONNECT listener, for the `longline` command; empty when there is none.
    """
    import yaml  # costs 2 MB, and a server makes none

    return str(yaml.safe_dump(entries(server, ca_pem, user, shown, connect), sort_keys=False))


def entries(
    server: str, ca_pem: bytes, user: str, shown: dict[str, Any], connect: str = "", context: str = CONTEXT
) -> dict[str, Any]:
    """Returns a kubeconfig as an object, its cluster and context named `context`.

    `ca_pem` may be empty, for what the system trusts.
    """
    cluster: dict[str, Any] = {"server": server, **({"certificate-authority-data": _base64(ca_pem)} if ca_pem else {})}
    if connect:
        cluster["extensions"] = [{"name": EXTENSION, "extension": {"connect": connect}}]
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": user, "user": shown}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
        "current-context": context,
    }


def by_login(server: str, login: str, command: str = "longline") -> dict[str, Any]:
    """Returns the entry of a user who has a login: kubectl gets a certificate for the login from the plugin.

    Args:
        server: the URL of the fleet API.
        login: the text of the login.
        command: the `longline` program, by name or path.
    """
    return {
        "exec": {
            "apiVersion": EXEC_API,
            "command": command,
            "args": [PLUGIN, "--server", server],
            "env": [{"name": LOGIN, "value": login}],
            "interactiveMode": "Never",
            "provideClusterInfo": True,
            "installHint": "longline is not installed here, or not in PATH: see README of Longline, or ask for a"
            " kubeconfig with a token (cloud-server user kubeconfig NAME --token)",
        }
    }


def by_issuer(server: str, command: str = "longline") -> dict[str, Any]:
    """Returns the entry of a user who logs in at an issuer: kubectl gets the ID token of `longline login` from the
    plugin.

    Args:
        server: the URL of the fleet API.
        command: the `longline` program, by name or path.
    """
    return {
        "exec": {
            "apiVersion": EXEC_API,
            "command": command,
            "args": [PLUGIN, BY_ISSUER, "--server", server],
            "interactiveMode": "Never",
            "provideClusterInfo": False,
            "installHint": "longline is not installed here, or not in PATH: see README of Longline",
        }
    }


def by_token(token: str) -> dict[str, Any]:
    """Returns the entry of a user who has a bearer token."""
    return {"token": token}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
