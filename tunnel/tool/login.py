"""Trades a login for a certificate.

The key is made here, the server signs, and it is kept while more than a third is left.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunnel.core.wire.faults import KUBECONFIG_UNUSABLE, FaultError
from tunnel.kubeapi.kubeconfig import EXEC_API, LOGIN
from tunnel.tool.credential import kept, now_s, path_of

if TYPE_CHECKING:
    from tunnel.tool.kubeconfig import Access

RENEW_AFTER = 2 / 3
"""The part of a certificate's life after which another one is asked for: a third is left for a server that is away."""
PATH = "/longline/v1/certificates"
INFO = "KUBERNETES_EXEC_INFO"
"""The variable in which kubectl says for which cluster it asks."""


class LoginFailed(FaultError):
    """No certificate can be had. The text is for the person at the terminal."""

    default_fault = KUBECONFIG_UNUSABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A certificate that is good now."""

    text: str
    """The ExecCredential that kubectl is told."""
    warning: str = ""
    """The reason why it is the old one, though it is time for another; empty when there is nothing to warn of."""

    @property
    def pem(self) -> bytes:
        """Returns the certificate and its key as PEM."""
        status = json.loads(self.text)["status"]
        return f"{status['clientCertificateData']}\n{status['clientKeyData']}".encode()


def certificate_for(access: Access) -> Held:
    """Returns the certificate of a login: the one that is kept, or a new one.

    Args:
        access: the server, with the login.

    Raises:
        LoginFailed: there is none that is good, and the server gives none.
    """
    path = path_of(access.login_server, access.login)
    found = kept(path)
    if found is not None and now_s() < found[0]:
        return Held(text=found[1])
    try:
        return _ask(access, Path(path))
    except LoginFailed as error:
        if found is None or not _is_good(found[1]):
            raise
        return Held(text=found[1], warning=f"your certificate ends soon, and there is no other to be had: {error}")


def access_for_kubectl(server: str) -> Access:
    """Returns what kubectl, which has started us, says of the cluster, with the login from the environment.

    Args:
        server: the URL of the fleet API, unless kubectl says another.

    Raises:
        LoginFailed: there is no login, or what kubectl says cannot be read.
    """
    from tunnel.tool.kubeconfig import Access

    login = os.environ.get(LOGIN)
    if not login:
        text = f"{LOGIN} is not set: kubectl starts this with the login of a kubeconfig, which has it there"
        raise LoginFailed(text)
    try:
        info = json.loads(os.environ.get(INFO) or "{}")
        cluster = (info.get("spec") or {}).get("cluster") or {}
        ca_pem = base64.b64decode(str(cluster.get("certificate-authority-data") or "")).decode("ascii")
    except (ValueError, AttributeError) as error:
        raise LoginFailed(f"what kubectl says in {INFO} cannot be read: {error}") from error
    return Access(
        context="",
        server=str(cluster.get("server") or server),
        connect="",
        files=(),
        tls_name=str(cluster.get("tls-server-name") or ""),
        proxy=str(cluster["proxy-url"]) if cluster.get("proxy-url") else None,
        ca_pem=ca_pem,
        login=login,
        login_server=server,
    )


# Internal


def _ask(access: Access, path: Path) -> Held:
    from tunnel.aio.identity.certificate import CertificateUnreadable, read_pem
    from tunnel.aio.identity.keys import KeysUnavailable, new_key, request_for
    from tunnel.tool.answers import FETCHED_CERTIFICATE
    from tunnel.tool.api import Api, ApiFailed

    try:
        key_pem = new_key()
        body = {"csr": base64.b64encode(request_for(key_pem)).decode()}
        answer = Api(replace(access, login="", token=access.login)).ask("POST", PATH, body, FETCHED_CERTIFICATE)
        certificate_pem = str(answer["certificate"])
        validity = read_pem(certificate_pem.encode())[0].validity
    except (ApiFailed, KeysUnavailable) as error:
        raise LoginFailed(str(error), error.fault) from error
    except CertificateUnreadable as error:
        raise LoginFailed(f"{access.server} gave an answer that has no certificate in it: {error}") from error
    text = _told(certificate_pem, key_pem.decode(), validity.not_after)
    until_s = validity.part(RENEW_AFTER).timestamp()
    return Held(text=text, warning=_keep(path, until_s, text))


def _told(certificate_pem: str, key_pem: str, end: datetime) -> str:
    credential: dict[str, Any] = {
        "apiVersion": EXEC_API,
        "kind": "ExecCredential",
        "status": {
            "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "clientCertificateData": certificate_pem,
            "clientKeyData": key_pem,
        },
    }
    return json.dumps(credential) + "\n"


def _is_good(text: str) -> bool:
    try:
        end = datetime.fromisoformat(json.loads(text)["status"]["expirationTimestamp"])
    except (ValueError, KeyError, TypeError):
        return False
    return datetime.now(UTC) < end


def _keep(path: Path, until_s: float, text: str) -> str:
    """Keeps a certificate for the next time, and drops those whose time is over.

    Returns why that cannot be done; empty when it was done.
    """
    from tunnel.aio.process.files import SECRET, write_atomic

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for other in path.parent.iterdir():
            found = kept(str(other))
            if found is not None and not _is_good(found[1]):
                with contextlib.suppress(OSError):
                    other.unlink()
        write_atomic(path, f"{until_s}\n{text}".encode(), SECRET)
    except OSError as error:
        return f"the certificate cannot be kept, so that each command asks for another: {path.parent}: {error.strerror}"
    return ""
