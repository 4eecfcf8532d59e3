"""Checks the certificate that a server answered, and puts it in the place of the box's old one."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.identity.identity import Identity, IdentityUnusable
from tunnel.aio.identity.openssl import check_material
from tunnel.aio.identity.peer_identity import identify_certificate
from tunnel.aio.identity.spiffe import IdentityUnclear
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile, write_together
from tunnel.core.wire.faults import PEER_ROLE_REFUSED
from tunnel.core.wire.names import is_agent_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A server's answer to a certificate request, found to be of use."""

    name: str
    """The agent's name."""
    certificate_pem: bytes
    """The certificate with its chain."""
    ca_pem: bytes


def check_answer(chain_der: Sequence[bytes], ca_pem: bytes, key_pem: bytes) -> Answer:
    """Checks an answer before it takes the place of anything.

    Raises:
        ValueError: this box could not connect with it; the text says why.
    """
    if not chain_der:
        raise ValueError("the server sent no certificate for this box's key")
    pem = "".join(map(ssl.DER_cert_to_PEM_cert, chain_der)).encode()
    try:
        check_material(pem, key_pem, ca_pem)
    except (ssl.SSLError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ValueError("the server sent no certificate for this box's key") from error
        raise ValueError("the server sent a certificate that cannot be read") from error
    try:
        identity = identify_certificate(chain_der[0], None)
        if identity.role != "agent" or not is_agent_name(identity.name):
            raise IdentityUnclear(f"{identity.uri!r} is not the name of an agent", PEER_ROLE_REFUSED)
    except IdentityUnclear as error:
        raise ValueError(f"the server sent a certificate of no use: {error}") from error
    return Answer(name=identity.name, certificate_pem=pem, ca_pem=ca_pem)


def load_key(identity: Identity) -> bytes:
    """Returns the box's private key as PEM.

    Raises:
        IdentityUnusable: it cannot be read.
    """
    path = identity.key_path
    try:
        return path.read_bytes()
    except OSError as error:
        raise IdentityUnusable(f"{path} cannot be read: {error}") from error


def replace(identity: Identity, answer: Answer, key_pem: bytes | None = None) -> None:
    """Takes a new certificate, and a new key with it after a join; all of the files or none.

    Raises:
        OSError: the folder cannot be written; nothing was changed.
    """
    files = [
        NewFile(identity.ca_path, answer.ca_pem, PUBLIC),
        NewFile(identity.certificate_path, answer.certificate_pem, PUBLIC),
    ]
    if key_pem is not None:
        files.insert(0, NewFile(identity.key_path, key_pem, SECRET))
    write_together(files)
