"""Checks the certificate that a server answered, and puts it in the place of the box's old one."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from edge_agent.identity.authorities import is_of_one, strange
from edge_agent.identity.identity import Identity, IdentityUnusable
from edge_agent.identity.turn import Turn
from protos import tunnel_pb2
from tunnel.aio.identity.certificate import as_pem, pem_blocks
from tunnel.aio.identity.keys import new_key
from tunnel.aio.identity.openssl import check_material
from tunnel.aio.identity.peer_identity import PeerIdentity, identify_certificate
from tunnel.aio.identity.spiffe import IdentityUnclear
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile, write_together
from tunnel.core.wire.faults import ANSWER_REFUSED, PEER_ROLE_REFUSED, FaultError
from tunnel.core.wire.names import is_agent_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A server's answer to a certificate request, after it was checked."""

    name: str
    """The agent's name."""
    certificate_pem: bytes
    """The certificate with its chain."""
    ca_pem: bytes
    """The authorities to trust: the ones that were looked at, and not the text that the server sent."""
    recovery_pem: bytes = b""
    """A certificate of the same key for Recover; empty from a server that has none."""
    generation: int = 0
    """The generation of the next request."""


class AnswerRefused(FaultError, ValueError):
    """The answer is not used, and the box goes on with what it has."""

    default_fault = ANSWER_REFUSED


def check_answer(
    answered: tunnel_pb2.JoinResponse | tunnel_pb2.RenewResponse,
    key_pem: bytes,
    trusted_pem: bytes,
    uri: str = "",
    asked: int = 0,
) -> Answer:
    """Checks an answer before it takes the place of anything. Blocking.

    Args:
        answered: what the server said.
        key_pem: the key that the certificate was asked for.
        trusted_pem: the authorities that the box trusts now: each that it is to trust must be one that they agreed to.
        uri: the name that the certificate must have; empty for any of an agent.
        asked: the generation that a renewal was asked for with: the answer to it, and to the same once more, has the
            next one.

    Raises:
        AnswerRefused: with it, this box could not connect, would be somebody else, or would trust a stranger.
        KeysUnavailable: nothing is here to check signatures with.
    """
    chain_der = answered.chain_der
    if not chain_der:
        raise AnswerRefused("the server sent no certificate for this box's key")
    pem = as_pem(chain_der)
    recovery = as_pem([answered.recovery_der]) if answered.recovery_der else b""
    try:
        ca_pem = as_pem(pem_blocks(answered.ca_pem))
        check_material(pem, key_pem, ca_pem)
        if recovery:
            check_material(recovery, key_pem, ca_pem)
        strangers = strange(ca_pem, answered.cross_der, trusted_pem)
        unsigned = [der for der in (chain_der[0], answered.recovery_der) if der and not is_of_one(der, ca_pem)]
    except (ssl.SSLError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise AnswerRefused("the server sent no certificate for this box's key") from error
        raise AnswerRefused("the server sent a certificate that cannot be read") from error
    try:
        identity = _agent(chain_der[0])
        back = identify_certificate(answered.recovery_der, None).uri if recovery else ""
    except IdentityUnclear as error:
        raise AnswerRefused(f"the server sent a certificate of no use: {error}") from error
    if uri and identity.uri != uri:
        raise AnswerRefused(f"the server sent a certificate of {identity.uri}, and this box is {uri}")
    if strangers:
        names = ", ".join(strangers)
        raise AnswerRefused(f"no authority that the box trusts has agreed to {names}, which it is to trust now")
    if unsigned:
        raise AnswerRefused("the server sent a certificate that none of the authorities that it named has signed")
    wanted = identity.uri.removesuffix(f"agent/{identity.name}") + f"recover/{identity.name}"
    if back and back != wanted:
        raise AnswerRefused(f"the server sent a certificate of {back} to come back with, and this box needs {wanted}")
    generation = answered.generation if isinstance(answered, tunnel_pb2.RenewResponse) else 0
    if isinstance(answered, tunnel_pb2.RenewResponse) and generation != asked + 1:
        # The next request would have that number: the server would take this box for a copy, or refuse it for ever.
        raise AnswerRefused(f"the server says that this is renewal {generation}, and it is {asked + 1}")
    return Answer(
        name=identity.name,
        certificate_pem=pem,
        ca_pem=ca_pem,
        recovery_pem=recovery,
        generation=generation,
    )


def load_key(path: Path) -> bytes:
    """Returns a private key of the box as PEM. Blocking.

    Raises:
        IdentityUnusable: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise IdentityUnusable(f"{path} cannot be read: {error}") from error


def next_key(identity: Identity) -> bytes:
    """Returns the key that is to take the place of the box's, as PEM. It is on the disk before this returns. Blocking.

    Raises:
        KeysUnavailable: there is nothing to make it with.
        OSError: it cannot be written.
    """
    try:
        return identity.next_key_path.read_bytes()
    except FileNotFoundError:
        key_pem = new_key()
        write_together([NewFile(identity.next_key_path, key_pem, SECRET)])
        return key_pem


def replace(identity: Identity, answer: Answer, key_pem: bytes | None = None) -> None:
    """Replaces the certificate of the box by a new one. Blocking.

    It is for the key that the box has, for its next one, or after a join for `key_pem`, which is the next one then. The
    number of the renewal is on the disk before the certificate is used: the server takes that for the end of it. A next
    key moves last, so that the box always has the key of its certificate: `Identity.settle` moves it after a crash.

    Raises:
        OSError: the folder cannot be written; nothing was changed.
    """
    files = [
        Turn(answer.generation).file(identity),
        NewFile(identity.ca_path, answer.ca_pem, PUBLIC),
        NewFile(identity.certificate_path, answer.certificate_pem, PUBLIC),
    ]
    if answer.recovery_pem:
        files.insert(2, NewFile(identity.recovery_path, answer.recovery_pem, PUBLIC))
    if key_pem is not None:
        files.insert(0, NewFile(identity.next_key_path, key_pem, SECRET))
    write_together(files)
    identity.settle()


# Internal


def _agent(der: bytes) -> PeerIdentity:
    """Returns whom a certificate names.

    Raises:
        IdentityUnclear: that is no agent.
    """
    identity = identify_certificate(der, None)
    if identity.role != "agent" or not is_agent_name(identity.name):
        raise IdentityUnclear(f"{identity.uri!r} is not the name of an agent", PEER_ROLE_REFUSED)
    return identity
