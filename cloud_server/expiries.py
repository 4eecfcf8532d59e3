"""Finds every certificate of a configuration whose end somebody has to know: what it is, until when it is good, and
what to do then.

A certificate that cannot be read is left out: the place where it is used reports that.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloud_server.config import ServerConfig, state_of
from cloud_server.trust.state_files import CA_FILE, SERVER_FILE, SITE_PROXY_FILE
from tunnel.aio.identity.certificate import Certificate, CertificateUnreadable, read_pem
from tunnel.aio.identity.validity import AUTHORITY, LEAF, Margin, Validity, Watched

_RENEWS = "a running server renews it by itself, and cloud-server renew does when none runs"
_REPLACE = "replace the file; the server takes it up without a restart"


def watched(config: ServerConfig) -> list[Watched]:
    """Returns all certificates of a configuration that can be read. Blocks."""
    tunnel, state = config.tunnel, state_of(config)
    own = tunnel.client_ca is None
    server, authority = tunnel.certificate or state / SERVER_FILE, tunnel.client_ca or state / CA_FILE
    found = [
        _file("server", "the server's certificate", server, _RENEWS if own else _REPLACE, heals=own),
        _authorities("ca", authority, _RENEWS if own else _REPLACE, heals=own),
    ]
    if config.connect.listen_kubectl is not None:
        remedy = "delete the file, restart the server, and make the kubeconfigs of sites anew"
        what = "the certificate that the kubeconfigs of sites trust,"
        found.append(_file("site-proxy", what, state / SITE_PROXY_FILE, remedy, AUTHORITY))
    for name, path, remedy in _kubeconfigs(config):
        found.append(_watched(name, "the client certificate in", path, _client_pem(path), remedy))
    return [one for one in found if one is not None]


def operators_certificate(kubeconfig: Path) -> Watched | None:
    """Returns the user's certificate inside a kubeconfig of ours; None when there is none. Blocks."""
    remedy = "make another kubeconfig: cloud-server kubeconfig --user NAME"
    return _watched(kubeconfig.name, "the user's certificate in", kubeconfig, _client_pem(kubeconfig), remedy)


# Internal


def _kubeconfigs(config: ServerConfig) -> Iterator[tuple[str, Path, str]]:
    """Yields the name, file and remedy of each kubeconfig in the configuration."""
    if config.kubernetes.kubeconfig is not None:
        yield "kubernetes", config.kubernetes.kubeconfig, "bring a fresh one; the server reads the file again"
    for cluster in config.cluster:
        remedy = "bring a fresh one, and make the kubeconfigs of the site anew"
        yield f"cluster {cluster.name}", cluster.kubeconfig, remedy


def _file(
    name: str, what: str, path: Path, remedy: str, margin: Margin = LEAF, *, heals: bool = False
) -> Watched | None:
    try:
        pem = path.read_bytes()
    except OSError:
        return None
    return _watched(name, what, path, pem, remedy, margin, heals=heals)


def _watched(
    name: str, what: str, path: Path, pem: bytes | None, remedy: str, margin: Margin = LEAF, *, heals: bool = False
) -> Watched | None:
    """Returns the certificate of a chain that ends first: an intermediate may end before the leaf. None when there is
    none.
    """
    certificates = _read(pem)
    if not certificates:
        return None
    validity = min((certificate.validity for certificate in certificates), key=lambda one: one.not_after)
    return Watched(name=name, what=f"{what} {path}", validity=validity, remedy=remedy, margin=margin, heals=heals)


def _authorities(name: str, path: Path, remedy: str, *, heals: bool) -> Watched | None:
    """Returns the authority of a file that ends last: old and new stand beside each other while one takes the other's
    place. None when there is none.
    """
    try:
        certificates = _read(path.read_bytes())
    except OSError:
        return None
    if not certificates:
        return None
    validity: Validity = max((certificate.validity for certificate in certificates), key=lambda one: one.not_after)
    what = f"the authority of agents and users {path}"
    return Watched(name=name, what=what, validity=validity, remedy=remedy, margin=AUTHORITY, heals=heals)


def _client_pem(path: Path) -> bytes | None:
    """Returns the client certificate of a kubeconfig's current context as PEM; None when there is none. Blocks."""
    import yaml  # costs 2 MB, for servers without a cluster too

    try:
        config: Any = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        user = _named(config["users"], context["user"])["user"]
        if data := user.get("client-certificate-data"):
            return base64.b64decode(data)
        return Path(path.parent, user["client-certificate"]).read_bytes()
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, LookupError, ValueError, binascii.Error):
        return None


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise LookupError(name)


def _read(pem: bytes | None) -> list[Certificate]:
    try:
        return read_pem(pem or b"")
    except CertificateUnreadable:
        return []
