"""Finds every certificate of a configuration whose end somebody has to know: what it is, until when it is good, and
what to do then.

A certificate that cannot be read is left out: the place where it is used reports that.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloud_server.config import ServerConfig, authority_folder, state_of
from cloud_server.trust.authenticator import token_digest
from cloud_server.trust.database import DATABASE_FILE
from cloud_server.trust.records import USER_TOKENS, UserToken
from cloud_server.trust.state import open_state
from cloud_server.trust.state_files import CA_FILE, OPERATORS_KUBECONFIG, SERVER_FILE, SITE_PROXY_FILE
from cloud_server.trust.store import StoreUnavailable, value_of
from tunnel.aio.identity.certificate import Certificate, CertificateUnreadable, read_pem
from tunnel.aio.identity.validity import Validity, Watched
from tunnel.kubeapi.kubeconfig import LOGIN

_RENEWS = "a running server renews it by itself, and cloud-server certificate renew does when none runs"
_REPLACE = "replace the file; the server takes it up without a restart"


def watched(config: ServerConfig) -> list[Watched]:
    """Returns all certificates of a configuration that can be read. Blocks."""
    tunnel, state = config.tunnel, state_of(config)
    own = tunnel.client_ca is None
    server = tunnel.certificate or state / SERVER_FILE
    authority = tunnel.client_ca or authority_folder(config) / CA_FILE
    found = [
        _file("server", "the server's certificate", server, _RENEWS if own else _REPLACE, heals=own),
        _authorities("ca", authority, _RENEWS if own else _REPLACE, heals=own),
    ]
    if config.connect.listen_kubectl is not None:
        remedy = "delete the file, restart the server, and make the kubeconfigs of sites anew"
        what = "the certificate that the kubeconfigs of sites trust,"
        found.append(_file("site-proxy", what, state / SITE_PROXY_FILE, remedy))
    for name, path, remedy in _kubeconfigs(config):
        found.append(_watched(name, "the client certificate in", path, _client_pem(path), remedy))
    return [one for one in found if one is not None]


def operators_login(config: ServerConfig) -> Watched | None:
    """Returns how long the login in the operator's own kubeconfig is good; None where there is none. Blocking."""
    state = state_of(config)
    path = state / OPERATORS_KUBECONFIG
    login = _login(path)
    if not login or not (state / DATABASE_FILE).exists():
        return None
    try:
        record = asyncio.run(_login_record(state, token_digest(login)))
    except StoreUnavailable:
        return None
    if record is None or record.expires is None:
        return None
    remedy = f"cloud-server user kubeconfig {record.user} --out {path} --force makes another"
    return Watched(
        name=OPERATORS_KUBECONFIG,
        what=f"the login in {path}",
        validity=Validity(record.created, record.expires),
        remedy=remedy,
    )


def server_names(config: ServerConfig) -> list[str]:
    """Returns the names and addresses of the server's certificate, sorted; empty when it cannot be read. Blocking."""
    try:
        found = _read((config.tunnel.certificate or state_of(config) / SERVER_FILE).read_bytes())
    except OSError:
        return []
    return sorted(found[0].hosts) if found else []


# Internal


def _kubeconfigs(config: ServerConfig) -> Iterator[tuple[str, Path, str]]:
    """Yields the name, file and remedy of each kubeconfig in the configuration."""
    if config.kubernetes.kubeconfig is not None:
        yield "kubernetes", config.kubernetes.kubeconfig, "bring a fresh one; the server reads the file again"
    for cluster in config.cluster:
        remedy = "bring a fresh one, and make the kubeconfigs of the site anew"
        yield f"cluster {cluster.name}", cluster.kubeconfig, remedy


def _file(name: str, what: str, path: Path, remedy: str, *, heals: bool = False) -> Watched | None:
    try:
        pem = path.read_bytes()
    except OSError:
        return None
    return _watched(name, what, path, pem, remedy, heals=heals)


def _watched(
    name: str, what: str, path: Path, pem: bytes | None, remedy: str, *, heals: bool = False
) -> Watched | None:
    """Returns the certificate of a chain that ends first: an intermediate may end before the leaf. None when there is
    none.
    """
    certificates = _read(pem)
    if not certificates:
        return None
    validity = min((certificate.validity for certificate in certificates), key=lambda one: one.not_after)
    return Watched(name=name, what=f"{what} {path}", validity=validity, remedy=remedy, heals=heals)


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
    return Watched(name=name, what=what, validity=validity, remedy=remedy, heals=heals)


async def _login_record(state: Path, sha256: str) -> UserToken | None:
    store = open_state(state)
    try:
        return value_of(store.get(USER_TOKENS, sha256))
    finally:
        await store.aclose()


def _login(path: Path) -> str:
    """Returns the login that a kubeconfig's first user has for the credential plugin; empty where there is none."""
    import yaml  # costs 2 MB

    try:
        variables = yaml.safe_load(path.read_text())["users"][0]["user"]["exec"]["env"]
        return next((str(one["value"]) for one in variables if one["name"] == LOGIN), "")
    except (OSError, yaml.YAMLError, KeyError, TypeError, LookupError, ValueError):
        return ""


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
