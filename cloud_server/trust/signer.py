"""Has certificates signed for the server, which has neither the authority's key nor the X.509 library.

Both are in a process of their own: whoever takes over the process that faces the network has not got the key with it,
and a server at rest holds 12 MB less. It is a child (signing.py), which is started when there is something to sign, and
ended when there has been nothing for a while. Or it is a service of another account (signing_service.py), which alone
can read the key, too.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from cloud_server.trust.renewal import alone, write_server
from cloud_server.trust.signing_link import AuthorityPlace, ChildLink, Said, ServiceLink, SignerFailed, SigningLink
from cloud_server.trust.state_files import CA_FILE, SERVER_FILE
from tunnel.core.wire.faults import REQUEST_REFUSED, SIGNING_DENIED, STATE_NOT_WRITABLE, FaultError
from tunnel.core.wire.limits import MAX_CSR_BYTES

IDLE_S = 30.0
"""Seconds without use after which the process is ended: one serves a whole batch of boxes that join."""
ANSWER_S = 10.0
"""Seconds within which the process must answer, or it is killed. It takes 0.2 s to start on an idle core, and a
millisecond to sign.
"""


class CsrRefused(FaultError):
    """The request is not one that is signed here; the text is for the box's owner."""

    default_fault = REQUEST_REFUSED


@dataclass(frozen=True, slots=True)
class Signed:
    """A new certificate of an agent."""

    certificate_der: bytes
    ca_pem: bytes
    """The authorities to trust: first the one that signed it."""
    authorities: tuple[str, ...]
    """The ids of these authorities, in the same order; see `authority_id`."""
    cross_der: tuple[bytes, ...]
    """The certificates of authorities that those before them signed."""
    recovery_der: bytes
    """A certificate of the same key that opens nothing but Recover; empty for a user, who comes back by a login."""

    @classmethod
    def of(cls, said: Said) -> Signed:
        """Returns the certificate in an answer of the process."""
        return cls(
            base64.b64decode(said["certificate"]),
            said["ca"].encode(),
            tuple(said["authorities"].split()),
            tuple(map(base64.b64decode, said["cross"].split())),
            base64.b64decode(said.get("recovery", "")),
        )


@dataclass(frozen=True, slots=True)
class JoinCredential:
    """The credential inside a join token: a certificate that opens nothing but Join, and its key."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    ca_pem: bytes
    """The certificate of the authority that signed it, and signed the server's."""


@dataclass(frozen=True, slots=True)
class NewServer:
    """A new certificate of the server with its chain, and its key."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


class Signer:
    """The server's side of the signing process, which it asks one question after another. `aclose` ends the process, or
    the connection to it.
    """

    def __init__(
        self,
        state: Path,
        trust_domain: str,
        place: AuthorityPlace | None = None,
        *,
        idle_s: float = IDLE_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        """Starts no process yet.

        Args:
            state: the state folder.
            trust_domain: that certificates are to be of.
            place: of an authority that belongs to another account; None for one in the state folder, for which a child
                signs.
            idle_s: seconds without use after which the child, or the connection, is ended.
            answer_s: seconds within which an answer must come.
        """
        self._state = state
        self._link: SigningLink = (
            ChildLink(state, trust_domain, answer_s) if place is None else ServiceLink(place, trust_domain, answer_s)
        )
        # A thread of its own: the process is asked in order, and a queue before it takes no thread from others.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="signer")
        self._idle_s = idle_s
        self._idle: asyncio.TimerHandle | None = None

    async def check(self) -> None:
        """Makes sure that there is an authority to sign with.

        Raises:
            SignerFailed: there is none.
        """
        await self._ask(None)

    async def spki_sha256(self, csr_der: bytes) -> bytes:
        """Returns the SHA-256 of the public key (SubjectPublicKeyInfo) that a certificate request is for, and signed
        by.

        Raises:
            CsrRefused: the request is not in order, or its key is of a kind that is not taken.
            SignerFailed: nobody can look at it.
        """
        said = await self._ask({"ask": "key", **_asking(csr_der)})
        return bytes.fromhex(said["spki_sha256"])

    async def sign(self, name: str, csr_der: bytes, shown_der: bytes) -> Signed:
        """Returns a certificate of the agent `name` for the key of a request.

        `shown_der` is the certificate that the box showed: of this agent, or of a join token that is for this name.

        Raises:
            CsrRefused: the request is not in order, or its key is of a kind that is not taken.
            SignerFailed: nothing can be signed, or not this.
        """
        shown = base64.b64encode(shown_der).decode()
        return Signed.of(await self._ask({"ask": "agent", **_asking(csr_der), "name": name, "shown": shown}))

    async def sign_user(self, name: str, csr_der: bytes, life: timedelta) -> Signed:
        """Returns a certificate of the user `name` for the key of a request.

        Raises:
            CsrRefused: the request is not in order, or its key is of a kind that is not taken.
            SignerFailed: nothing can be signed.
        """
        life_s = str(life.total_seconds())
        return Signed.of(await self._ask({"ask": "user", **_asking(csr_der), "name": name, "life_s": life_s}))

    async def join_credential(self, token_id: str, life: timedelta, agent: str) -> JoinCredential:
        """Returns the credential that a box shows which has the token of this id; it is valid for `life`, and for the
        name, or the pattern of names, `agent`.

        Raises:
            SignerFailed: nothing can be signed, or not this.
        """
        life_s = str(life.total_seconds())
        said = await self._ask({"ask": "join", "token": token_id, "agent": agent, "life_s": life_s})
        return JoinCredential(said["certificate"].encode(), said["key"].encode(), said["ca"].encode())

    async def renew(self, files: Sequence[str]) -> None:
        """Renews these files (`renewal.due` names them).

        Raises:
            SignerFailed: not all of them could be renewed; the text says why.
        """
        if CA_FILE in files:
            await self._ask({"ask": "authority"})
        if SERVER_FILE in files:
            said = await self._ask({"ask": "server"})
            await asyncio.to_thread(self._keep, NewServer(said["certificate"].encode(), said["key"].encode()))

    async def aclose(self) -> None:
        """Ends the process."""
        if self._idle is not None:
            self._idle.cancel()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._link.end)
        self._thread.shutdown(wait=False)

    # Internal

    def _keep(self, new: NewServer) -> None:
        try:
            with alone(self._state):
                write_server(self._state, new)
        except OSError as error:
            text = f"{error.filename or self._state} cannot be written: {error.strerror or error}"
            raise SignerFailed(text, STATE_NOT_WRITABLE) from error

    async def _ask(self, question: Mapping[str, str] | None) -> Said:
        loop = asyncio.get_running_loop()
        if self._idle is not None:
            self._idle.cancel()
        self._idle = loop.call_later(self._idle_s, self._thread.submit, self._link.end)
        # A caller that is cancelled leaves the thread to finish: the next one finds no answer of somebody else.
        said = await loop.run_in_executor(self._thread, self._link.ask, question)
        if "refused" in said:
            raise CsrRefused(said["refused"])
        if "denied" in said:
            raise SignerFailed(said["denied"], SIGNING_DENIED)
        if "failed" in said:
            raise SignerFailed(said["failed"])
        return said


def _asking(csr_der: bytes) -> Said:
    """The part of a question that is the request for a certificate.

    Raises:
        CsrRefused: it is longer than any that is signed here; the process never sees it.
    """
    if len(csr_der) > MAX_CSR_BYTES:
        raise CsrRefused(f"the certificate request is longer than {MAX_CSR_BYTES} bytes")
    return {"csr": base64.b64encode(csr_der).decode()}
