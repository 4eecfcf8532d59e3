"""The certificate by which the node's components know the API proxy of their own node. It is made once, for this node.

Its key lies beside it: whoever can read that is root on the node, and can read the kubelet's own key as well.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from tunnel.aio.identity.certificate import read_pem
from tunnel.aio.identity.keys import KeysUnavailable, new_key, self_signed
from tunnel.aio.identity.openssl import check_material, load_chain
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile, write_together
from tunnel.core.wire.faults import STATE_NOT_WRITABLE, FaultError

CERTIFICATE, KEY = "api-proxy.crt", "api-proxy.key"
"""The names of the files in the state folder. The kubeconfig of a component has the first as its authority."""


NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL. A node that booted without the cloud may have any time, and a certificate that
could not be renewed: who may do what is the API server's to say, which looks at the time itself.
"""


class ServingUnavailable(FaultError):
    """There is no certificate to serve with, and none can be made; the text says why."""

    default_fault = STATE_NOT_WRITABLE


def serving_context(folder: Path, name: str, hosts: list[str], clients: bytes, alpn: list[str]) -> ssl.SSLContext:
    """Returns the context of the listener, and makes its certificate when there is none that fits. Blocks.

    One for other hosts is made with the same key and name. Components that run have the one before as their authority,
    and Go's go on to believe it: it says of itself that it may sign, and has signed the new one.

    Args:
        folder: the state folder.
        name: whose proxy it is.
        hosts: the names and addresses that components reach it by.
        clients: the authorities of client certificates, as PEM.
        alpn: the protocols that are offered, best first.

    Raises:
        ServingUnavailable: the certificate cannot be made or written.
    """
    certificate, key = _kept(folder, hosts)
    if not certificate:
        certificate, key = _made(folder, name, hosts, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(alpn)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= NO_CHECK_TIME
    context.load_verify_locations(cadata=clients.decode("ascii"))
    load_chain(context, certificate + b"\n" + key)
    return context


def _kept(folder: Path, hosts: list[str]) -> tuple[bytes, bytes]:
    """Returns the certificate, which is empty where there is none for all of these hosts, and the key, which is empty
    where there is none that can be used.
    """
    try:
        certificate, key = (folder / CERTIFICATE).read_bytes(), (folder / KEY).read_bytes()
        check_material(certificate, key, certificate)
        known = read_pem(certificate)[0].hosts
    except (OSError, ssl.SSLError, ValueError):
        return b"", b""
    return (certificate if known >= set(hosts) else b""), key


def _made(folder: Path, name: str, hosts: list[str], key: bytes) -> tuple[bytes, bytes]:
    try:
        key = key or new_key()
        certificate = self_signed(key, name, hosts)
        write_together([NewFile(folder / KEY, key, SECRET), NewFile(folder / CERTIFICATE, certificate, PUBLIC)])
    except KeysUnavailable as error:
        raise ServingUnavailable(str(error), error.fault) from error
    except OSError as error:
        raise ServingUnavailable(f"{folder}: {error.strerror}") from error
    return certificate, key
