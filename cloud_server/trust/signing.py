"""The process that signs: agents' certificates, the server's and the authority's own. It is the only one that holds the
authority's key while the server runs.

`cloud_server.trust.signer` starts it, and asks it line by line (JSON) over its standard input and output. It ends
with its input, so that it cannot outlive the server.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.trust.ca import CaMissing, CertificateAuthority, PublicKey, spki_sha256
from cloud_server.trust.renewal import renew
from tunnel.core.wire.faults import REQUEST_REFUSED, FaultError

CURVES = (ec.SECP256R1, ec.SECP384R1)


class RequestRefused(FaultError):
    """The request is not one that we sign; the text tells the box's owner why."""

    default_fault = REQUEST_REFUSED


def key_of(csr_der: bytes) -> PublicKey:
    """Returns the key that a certificate request is for, and that has signed it.

    Raises:
        RequestRefused: the request is not in order, or not for a key of a kind that we take.
    """
    try:
        request = x509.load_der_x509_csr(csr_der)
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise RequestRefused("the certificate request cannot be read") from error
    if not signed:
        raise RequestRefused("the certificate request is not signed by its key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise RequestRefused("the key must be of curve P-256 or P-384")
    return key


def answer(authority: CertificateAuthority, question: dict[str, Any]) -> dict[str, str]:
    """Answers one question: whose key a request is for; and with the certificate, when there is a name for it."""
    try:
        key = key_of(base64.b64decode(question["csr"]))
    except RequestRefused as refused:
        return {"refused": str(refused)}
    said = {"spki_sha256": spki_sha256(key).hex()}
    if (name := question.get("name")) is not None:
        pem = authority.issue_agent(name, key)
        der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        said["certificate"] = base64.b64encode(der).decode()
        said["ca"] = authority.pem.decode()
    return said


def main() -> None:
    """Answers questions until the input ends. The first line out says whether there is an authority."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process of the terminal; the server decides
    folder, trust_domain = sys.argv[1:]
    try:
        authority = CertificateAuthority.load(Path(folder), trust_domain)
    except CaMissing as missing:
        _say({"fault": str(missing)})
        return
    _say({})
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if "join" in question:
            _say(_join(authority, question["join"], timedelta(seconds=float(question["life_s"]))))
        elif "renew" in question:
            authority, said = _renewed(authority, Path(folder), question["renew"].split())
            _say(said)
        else:
            _say(answer(authority, question))


def _join(authority: CertificateAuthority, token_id: str, life: timedelta) -> dict[str, str]:
    """Answers with the certificate inside a join token, and the key that is made for it."""
    issued = authority.issue_join(token_id, life)
    return {
        "certificate": issued.certificate_pem.decode(),
        "key": issued.key_pem.decode(),
        "ca": authority.pem.decode(),
    }


def _renewed(
    authority: CertificateAuthority, state: Path, files: list[str]
) -> tuple[CertificateAuthority, dict[str, str]]:
    """Renews these files of the state folder. Returns the authority to go on with, and the answer."""
    try:
        return renew(state, authority, files), {}
    except (OSError, ValueError) as error:
        return authority, {"failed": str(error)}


def _say(what: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
