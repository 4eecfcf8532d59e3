"""The signing process and who asks it: real processes, killed, frozen and asked for rubbish."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cloud_server.trust.ca import CertificateAuthority, spki_sha256
from cloud_server.trust.renewal import due
from cloud_server.trust.signer import CsrRefused, Signer
from cloud_server.trust.signing import RequestRefused, key_of
from cloud_server.trust.signing_link import SignerFailed
from tests.support.waits import eventually, scaled_s
from tunnel.aio.process.files import write_together
from tunnel.core.wire.limits import MAX_CSR_BYTES

P256 = bytes.fromhex("06082a8648ce3d030107")
"""The OID of the curve (RFC 5480, 2.1.1.1), DER."""
DAY = timedelta(days=1)
TOKEN_ID = "0" * 32
KEY = ec.generate_private_key(ec.SECP256R1())
CSR = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([]))
    .sign(KEY, hashes.SHA256())
    .public_bytes(serialization.Encoding.DER)
)


AUTHORITY = CertificateAuthority.create("longline")
SHOWN = ssl.PEM_cert_to_DER_cert(AUTHORITY.issue_join(TOKEN_ID, DAY, "box-*").certificate_pem.decode())
"""What a box shows that is about to join, as any box of such a name."""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    write_together(AUTHORITY.files(tmp_path))
    return tmp_path


@contextlib.asynccontextmanager
async def open_signer(state: Path, *, idle_s: float = 30.0, answer_s: float = 30.0) -> AsyncIterator[Signer]:
    made = Signer(state, "longline", idle_s=idle_s, answer_s=answer_s)
    try:
        yield made
    finally:
        await made.aclose()
        assert processes(state) == []


def processes(state: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children()
        if process.status() != psutil.STATUS_ZOMBIE and str(state) in process.cmdline()
    ]


async def test_a_certificate_for_the_key_of_a_request(state: Path) -> None:
    async with open_signer(state) as signer:
        assert await signer.spki_sha256(CSR) == spki_sha256(KEY.public_key())
        signed = await signer.sign("box-7", CSR, SHOWN)
        certificate = x509.load_der_x509_certificate(signed.certificate_der)
        authority = x509.load_pem_x509_certificate(signed.ca_pem)
        certificate.verify_directly_issued_by(authority)
        assert certificate.public_key() == KEY.public_key()
        assert signed.ca_pem == (state / "ca.crt").read_bytes()
        assert len(processes(state)) == 1


async def test_certificates_of_the_state_folder_are_renewed_and_the_new_authority_signs(state: Path) -> None:
    await asyncio.to_thread((state / "hosts").write_text, "cloud.example.com\n")
    async with open_signer(state) as signer:
        await signer.renew(["ca.crt", "server.crt"])
        assert await asyncio.to_thread(due, state) == []
        signed = await signer.sign("box-7", CSR, SHOWN)
        assert signed.ca_pem == (state / "ca.crt").read_bytes()
        await asyncio.to_thread((state / "hosts").write_text, "b\u00fcro\n")
        with pytest.raises(SignerFailed, match="DNSName"):
            await signer.renew(["server.crt"])
        await signer.sign("box-7", CSR, SHOWN)
        assert len(processes(state)) == 1


async def test_the_key_is_in_no_word_that_others_can_read(state: Path) -> None:
    async with open_signer(state) as signer:
        await signer.check()
        (process,) = processes(state)
        assert "PRIVATE" not in " ".join(process.cmdline()) + str(process.environ())


async def test_a_request_that_is_rubbish_leaves_the_process_as_it_was(state: Path) -> None:
    async with open_signer(state) as signer:
        await signer.check()
        before = processes(state)
        unknown = CSR.replace(P256, P256[:-1] + b"\x7f")
        for rubbish in (b"", b"\n", b"x" * MAX_CSR_BYTES, CSR[:-1], unknown):
            with pytest.raises(CsrRefused, match="cannot be read"):
                await signer.sign("box-7", rubbish, SHOWN)
        await signer.sign("box-7", CSR, SHOWN)
        assert processes(state) == before


async def test_the_longest_request_that_the_process_is_shown(state: Path) -> None:
    async with open_signer(state) as signer:
        too_long = b"x" * (MAX_CSR_BYTES + 1)
        for ask in (
            signer.spki_sha256(too_long),
            signer.sign("box-7", too_long, b""),
            signer.sign_user("ann", too_long, DAY),
        ):
            with pytest.raises(CsrRefused, match="longer than 8192 bytes"):
                await ask
        assert processes(state) == []


def test_the_kind_of_a_key_is_looked_at_before_its_signature() -> None:
    """A signature of a huge RSA key takes long to look at, also one that is wrong."""
    key = rsa.generate_private_key(65537, 2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    forged = bytearray(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER))
    forged[-1] ^= 1
    with pytest.raises(RequestRefused, match="must be of curve P-256 or P-384"):
        key_of(bytes(forged))


async def test_no_authority(tmp_path: Path) -> None:
    async with open_signer(tmp_path) as signer:
        with pytest.raises(SignerFailed, match="run cloud-server init first"):
            await signer.check()
        await asyncio.to_thread(write_together, CertificateAuthority.create("longline").files(tmp_path))
        await signer.check()


async def test_a_process_that_was_killed_at_rest_is_started_again(state: Path) -> None:
    async with open_signer(state) as signer:
        await signer.check()
        (process,) = processes(state)
        process.kill()  # it may be there still when it is asked
        await signer.sign("box-7", CSR, SHOWN)
        assert processes(state) != [process]


async def test_one_that_does_not_answer_is_killed_and_the_next_one_does(state: Path) -> None:
    async with open_signer(state, answer_s=scaled_s(5.0)) as signer:  # each process loads its library in that, too
        await signer.check()
        (process,) = processes(state)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(SignerFailed, match="ended without an answer"):
            await signer.sign("box-7", CSR, SHOWN)
        await signer.sign("box-7", CSR, SHOWN)
        assert not process.is_running()


async def test_it_cannot_be_started(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(state / "nowhere"))
    async with open_signer(state) as signer:
        with pytest.raises(SignerFailed, match="cannot be started: No such file"):
            await signer.check()


async def test_whoever_gives_up_takes_no_answer_from_the_next(state: Path) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(other, hashes.SHA256())
    async with open_signer(state) as signer:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await signer.spki_sha256(CSR)
        answer = await signer.spki_sha256(csr.public_bytes(serialization.Encoding.DER))
        assert answer == spki_sha256(other.public_key())


async def test_many_at_once_are_answered_by_one_process(state: Path) -> None:
    async with open_signer(state) as signer:
        signed = await asyncio.gather(*(signer.sign(f"box-{number}", CSR, SHOWN) for number in range(50)))
        names = [
            x509.load_der_x509_certificate(one.certificate_der).subject.rfc4514_string().removeprefix("CN=")
            for one in signed
        ]
        assert names == [f"box-{number}" for number in range(50)]
        assert len(processes(state)) == 1


async def test_it_is_ended_when_it_was_not_used_for_a_while(state: Path) -> None:
    async with open_signer(state, idle_s=0.2) as signer:
        await signer.check()
        await eventually(lambda: not processes(state))
        await signer.sign("box-7", CSR, SHOWN)
