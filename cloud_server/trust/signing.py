"""Signs: certificates of agents and users, the server's and the authority's own. It is part of the only process that
holds the authority's key while the server runs.

That is a child of the server, which `cloud_server.trust.signer` starts and asks line by line (JSON) over its standard
input and output; it ends with its input, so that it cannot outlive the server. Or it is a service of another account
(signing_service.py), which is asked in the same words.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.trust.ca import CaMissing, CertificateAuthority, PublicKey, authority_id, spki_sha256
from cloud_server.trust.renewal import alone, is_old, server_hosts
from cloud_server.trust.signing_rules import Pace, Shown, SigningDenied, check_agent_name, check_join, check_user
from cloud_server.trust.state_files import CA_FILE, CA_KEY_FILE, CROSS_FILE
from tunnel.aio.identity.certificate import read_certificate
from tunnel.aio.process.files import PUBLIC, NewFile, stamp, write_together
from tunnel.core.wire.faults import REQUEST_REFUSED, FaultError
from tunnel.core.wire.limits import MAX_CSR_BYTES

_DER = serialization.Encoding.DER
CURVES = (ec.SECP256R1, ec.SECP384R1)

DENIED = "denied"
"""The event of a record about a question that the rules do not let be answered; all others are of certificates."""

Answer = dict[str, str]
Noted = Callable[..., None]
"""A function that keeps a record of what is about to be handed out: its kind, and what there is to say about it. It
raises OSError when that cannot be kept."""


class RequestRefused(FaultError):
    """The request is not one that we sign; the text tells the box's owner why."""

    default_fault = REQUEST_REFUSED


def key_of(csr_der: bytes) -> PublicKey:
    """Returns the key that a certificate request is for, and that has signed it.

    Raises:
        RequestRefused: the request is not in order, or not for a key of a kind that we take.
    """
    if len(csr_der) > MAX_CSR_BYTES:
        raise RequestRefused(f"the certificate request is longer than {MAX_CSR_BYTES} bytes")
    try:
        request = x509.load_der_x509_csr(csr_der)
        key = request.public_key()
        # Before the signature is looked at: with a huge key of another kind, that alone would take long.
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
            raise RequestRefused("the key must be of curve P-256 or P-384")
        signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise RequestRefused("the certificate request cannot be read") from error
    if not signed:
        raise RequestRefused("the certificate request is not signed by its key")
    return key


class Asker:
    """Somebody who has certificates signed: whether limits hold for them, and at which pace they ask."""

    def __init__(self, *, limited: bool, noted: Noted = lambda _kind, **_about: None) -> None:
        """`limited` is False for whoever may read the key anyway. `noted` is called before anything is handed out."""
        self.limited = limited
        self.noted = noted
        self.pace = Pace()

    def keep_pace(self, kind: str, name: str) -> None:
        """Counts a certificate.

        Raises:
            SigningDenied: there were too many.
        """
        if self.limited:
            self.pace.keep(kind, name, time.monotonic())


class Signing:
    """Answers questions with the authority of a folder. Everything blocks."""

    def __init__(self, folder: Path, trust_domain: str, state: Path | None = None) -> None:
        """Loads the authority.

        Args:
            folder: of the authority.
            trust_domain: the only one that certificates are made for.
            state: the folder with the server's certificate, which has the server's names should `hosts` be lost; None
                for a process that cannot read it.

        Raises:
            CaMissing: there is no authority that can be used.
        """
        self._folder = folder
        self._trust_domain = trust_domain
        self._state = state
        self._files = [folder / name for name in (CA_FILE, CA_KEY_FILE, CROSS_FILE)]
        self._seen = stamp(self._files)
        self._authority = CertificateAuthority.load(folder, trust_domain)

    def answer(self, line: bytes, asker: Asker) -> Answer:
        """Returns the answer to a question, or why there is none: `refused` for the box's owner, `denied` and `failed`
        for the operator.
        """
        kind = ""
        try:
            question = _question(line)
            kind = question["ask"]
            self._reload()
            if (answers := self._kinds().get(kind)) is None:
                raise SigningDenied(f"{kind[:80]!r} is nothing that is answered here")
            return answers(question, asker)
        except RequestRefused as refused:
            return {"refused": refused.text}
        except SigningDenied as denied:
            asker.noted(DENIED, ask=kind, text=denied.text)
            return {"denied": denied.text}
        except (CaMissing, OSError, ValueError, KeyError) as error:
            return {"failed": str(error)}

    # Internal

    def _kinds(self) -> Mapping[str, Callable[[dict[str, str], Asker], Answer]]:
        return {
            "key": lambda question, _asker: {"spki_sha256": spki_sha256(_key(question)).hex()},
            "agent": self._agent,
            "user": self._user,
            "join": self._join,
            "server": self._server,
            "authority": self._renew,
        }

    def _reload(self) -> None:
        """Takes up another authority, which a command has put there.

        Raises:
            CaMissing: what is there cannot be used.
        """
        if self._seen != (now := stamp(self._files)):
            self._seen = ()
            self._authority = self._authority.again(self._folder)
            self._seen = now

    def _agent(self, question: dict[str, str], asker: Asker) -> Answer:
        name, key = question["name"], _key(question)
        check_agent_name(name)
        shown = Shown.of(base64.b64decode(question["shown"]), self._authority, self._trust_domain)
        shown.check(name, key)
        asker.keep_pace("agent", name)
        pem, recovery = self._authority.issue_agent(name, key), self._authority.issue_recovery(name, key)
        # The longest life that is handed out with it is the recovery's.
        self._note("agent", asker, name, pem, shown=f"{shown.role}/{shown.name}", recovery=_serial(recovery))
        return {**self._said(pem, key), "recovery": base64.b64encode(_der(recovery)).decode()}

    def _user(self, question: dict[str, str], asker: Asker) -> Answer:
        name, key, life = question["name"], _key(question), _life(question)
        check_user(name, life, limited=asker.limited)
        asker.keep_pace("user", name)
        pem = self._authority.issue_user(name, key, life)
        self._note("user", asker, name, pem)
        return self._said(pem, key)

    def _join(self, question: dict[str, str], asker: Asker) -> Answer:
        token_id, agent, life = question["token"], question["agent"], _life(question)
        check_join(token_id, agent, life, limited=asker.limited)
        asker.keep_pace("join", agent)
        issued = self._authority.issue_join(token_id, life, agent)
        self._note("join", asker, agent, issued.certificate_pem, token=token_id)
        return {
            "certificate": issued.certificate_pem.decode(),
            "key": issued.key_pem.decode(),
            "ca": self._authority.pem.decode(),
        }

    def _server(self, _question: dict[str, str], asker: Asker) -> Answer:
        """Answers with a certificate of the server, and its key. The names are those of `hosts`, and no others."""
        hosts = server_hosts(self._folder, self._state)
        asker.keep_pace("server", "")
        issued = self._authority.issue_server(hosts)
        self._note("server", asker, " ".join(hosts), issued.certificate_pem)
        return {"certificate": issued.certificate_pem.decode(), "key": issued.key_pem.decode()}

    def _renew(self, _question: dict[str, str], asker: Asker) -> Answer:
        """Renews the authority's own certificate, in its folder, if that is due by this process's own look."""
        with alone(self._folder):
            authority = self._authority.again(self._folder)
            if is_old(read_certificate(authority.certificate.public_bytes(_DER)), datetime.now(UTC)):
                authority = authority.renewed()
                self._note("authority", asker, "", authority.pem)
                write_together([NewFile(self._folder / CA_FILE, authority.pem, PUBLIC)])
            self._authority = authority
        return {}

    def _said(self, pem: bytes, key: PublicKey) -> Answer:
        authority = self._authority
        return {
            "spki_sha256": spki_sha256(key).hex(),
            "certificate": base64.b64encode(_der(pem)).decode(),
            "ca": authority.pem.decode(),
            "authorities": " ".join(authority_id(one) for one in (authority.certificate, *authority.beside)),
            # All of them: those who trust any authority before these are to see that it agreed.
            "cross": " ".join(base64.b64encode(one.public_bytes(_DER)).decode() for one in authority.cross),
        }

    @staticmethod
    def _note(kind: str, asker: Asker, name: str, pem: bytes, **about: str) -> None:
        said = read_certificate(_der(pem))
        asker.noted("signed", kind=kind, name=name, serial=said.serial, until=said.validity.not_after, **about)


def _question(line: bytes) -> dict[str, str]:
    """Returns the question in a line.

    Raises:
        SigningDenied: it is none: all of its values are texts, and one of them says what is asked.
    """
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SigningDenied("what was asked is no JSON") from error
    if not isinstance(found, dict) or "ask" not in found or not all(isinstance(one, str) for one in found.values()):
        raise SigningDenied("what was asked is no question")
    return found


def _key(question: dict[str, str]) -> PublicKey:
    return key_of(base64.b64decode(question["csr"]))


def _life(question: dict[str, str]) -> timedelta:
    try:
        return timedelta(seconds=float(question["life_s"]))
    except (OverflowError, ValueError) as error:
        raise SigningDenied(f"{question['life_s'][:80]!r} is no time in seconds") from error


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(_DER)


def _serial(pem: bytes) -> str:
    return read_certificate(_der(pem)).serial


def main() -> None:
    """Answers questions until the input ends. The first line out says whether there is an authority."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process of the terminal; the server decides
    folder, trust_domain, state = sys.argv[1:]
    try:
        signing = Signing(Path(folder), trust_domain, Path(state))
    except CaMissing as missing:
        _say({"fault": str(missing)})
        return
    _say({"trust_domain": trust_domain})
    asker = Asker(limited=False)  # whoever has started this process may read the key, too
    for line in sys.stdin.buffer:
        _say(signing.answer(line, asker))


def _say(what: Answer) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
