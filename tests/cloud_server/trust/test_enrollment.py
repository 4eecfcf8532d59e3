"""Join and Renew as a box sees them: over real mutual TLS, against what boxes and strangers may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from cloud_server.trust.ca import spki_sha256
from cloud_server.trust.enrollment import JOINS, RENEWALS
from cloud_server.trust.records import JOIN_TOKENS
from cloud_server.trust.signer import Signed, Signer
from cloud_server.trust.store import Change, Kind, value_of
from protos import tunnel_pb2
from tests.support.carriers import DIRECT
from tests.support.enrolling import HOUR, Issuer, Office, open_office, unfinished_joins
from tests.support.pki import Authority
from tests.support.waits import eventually
from tunnel.aio.carriers.carrier_errors import CarrierLost, EnrollmentRefused
from tunnel.aio.carriers.enrollment import call_join, call_renew
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.core.path.rate import TokenBuckets
from tunnel.core.wire.faults import TOO_MANY_CLIENTS

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
TIMEOUT_S = 10.0


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as made:
        yield made


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def csr(key: Key, subject: str = "box") -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    )
    wish = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://longline/agent/other")])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.add_extension(wish, False).sign(key, algorithm).public_bytes(serialization.Encoding.DER)


async def join(place: Office, token: JoinToken, csr_der: bytes, name: str = "") -> tunnel_pb2.JoinResponse:
    tls = ClientTls(certificate=token.certificate_pem, key=token.key_pem, ca=token.ca_pem)
    return await call_join(place.address, tls, tunnel_pb2.JoinRequest(csr_der=csr_der, agent_name=name), DIRECT)


async def renew(
    place: Office, key: ec.EllipticCurvePrivateKey, certificate: bytes, csr_der: bytes
) -> tunnel_pb2.RenewResponse:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    tls = ClientTls(certificate=certificate, key=secret, ca=place.authority.pem)
    return await call_renew(place.address, tls, tunnel_pb2.RenewRequest(csr_der=csr_der), DIRECT)


async def token_of(place: Office, agent: str = "box-7") -> JoinToken:
    return await place.token(agent)


def uris_of(der: bytes) -> list[str]:
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


async def test_a_token_is_traded_for_a_certificate_with_the_tokens_name(
    place: Office, key: ec.EllipticCurvePrivateKey
) -> None:
    token = await token_of(place)
    response = await join(place, token, csr(key, "other"))
    (der,) = response.chain_der
    assert uris_of(der) == ["spiffe://longline/agent/box-7"]
    assert x509.load_der_x509_certificate(der).public_key() == key.public_key()
    assert (response.agent_name, response.ca_pem) == ("box-7", place.authority.pem)
    await place.agents.check("box-7", spki_sha256(key.public_key()))
    assert [(record["event"], record["agent"]) for record in place.audit] == [("joined", "box-7")]


async def test_a_used_token(place: Office, key: ec.EllipticCurvePrivateKey) -> None:
    token = await token_of(place)
    await join(place, token, csr(key))
    with pytest.raises(EnrollmentRefused, match="was used already"):
        await join(place, token, csr(key))
    (refused,) = place.audit.of("join_refused")
    assert (refused["code"], refused["folded"]) == ("LL2012", refused["token"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: rsa.generate_private_key(65537, 2048), "must be of curve P-256 or P-384"),
        (ed25519.Ed25519PrivateKey.generate, "must be of curve P-256 or P-384"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "must be of curve P-256 or P-384"),
    ],
)
async def test_a_key_of_another_kind_uses_no_token_up(place: Office, make: object, said: str) -> None:
    assert callable(make)
    token = await token_of(place)
    with pytest.raises(EnrollmentRefused, match=said):
        await join(place, token, csr(make()))
    await join(place, token, csr(ec.generate_private_key(ec.SECP384R1())))


async def test_a_request_that_its_key_did_not_sign(place: Office, key: ec.EllipticCurvePrivateKey) -> None:
    token = await token_of(place)
    der = bytearray(csr(key))
    der[-1] ^= 1
    with pytest.raises(EnrollmentRefused, match=r"not signed by its key|cannot be read"):
        await join(place, token, bytes(der))
    for rubbish in (b"", b"rubbish", csr(key)[:-9]):
        with pytest.raises(EnrollmentRefused, match="cannot be read"):
            await join(place, token, rubbish)


async def test_a_new_token_gives_the_name_to_a_new_key_and_ends_what_the_old_one_holds(
    place: Office, key: ec.EllipticCurvePrivateKey
) -> None:
    (old,) = (await join(place, await token_of(place), csr(key))).chain_der
    place.ended.clear()
    other = ec.generate_private_key(ec.SECP256R1())
    await join(place, await token_of(place), csr(other))
    assert [name for name, _ in place.ended] == ["box-7"]
    with pytest.raises(EnrollmentRefused, match="belongs to another key"):
        await renew(place, key, pem(old), csr(key))


def pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


async def test_a_renewal_keeps_name_and_key(place: Office, key: ec.EllipticCurvePrivateKey) -> None:
    (first,) = (await join(place, await token_of(place), csr(key))).chain_der
    response = await renew(place, key, pem(first), csr(key))
    (second,) = response.chain_der
    assert uris_of(second) == uris_of(first)
    assert second != first
    await renew(place, key, pem(second), csr(key))
    assert len(place.audit.of("renewed")) == 2


async def test_a_renewal_for_another_key(place: Office, key: ec.EllipticCurvePrivateKey) -> None:
    (first,) = (await join(place, await token_of(place), csr(key))).chain_der
    with pytest.raises(EnrollmentRefused, match="a new key needs a new join token"):
        await renew(place, key, pem(first), csr(ec.generate_private_key(ec.SECP256R1())))


async def test_a_revoked_agent_gets_no_renewal(place: Office, key: ec.EllipticCurvePrivateKey) -> None:
    (first,) = (await join(place, await token_of(place), csr(key))).chain_der
    await place.agents.revoke("box-7")
    with pytest.raises(EnrollmentRefused, match="was revoked"):
        await renew(place, key, pem(first), csr(key))
    assert [record["agent"] for record in place.audit.of("renewal_refused")] == ["box-7"]


async def test_a_box_that_renews_in_a_loop_is_told_to_wait_and_no_other(
    place: Office, key: ec.EllipticCurvePrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    real = TokenBuckets.take
    monkeypatch.setattr(TokenBuckets, "take", lambda self, who, _now, more=0: real(self, who, now_s, more))
    (mine,) = (await join(place, await token_of(place), csr(key))).chain_der
    other = ec.generate_private_key(ec.SECP256R1())
    (others,) = (await join(place, await token_of(place, "box-8"), csr(other))).chain_der
    for _ in range(RENEWALS.at_once):
        await renew(place, key, pem(mine), csr(key))
    for asked_s, advised_s in ((0.0, 30.0), (12.0, 18.0)):
        now_s = asked_s
        with pytest.raises(EnrollmentRefused, match="box-7 asks for certificates too often") as refused:
            await renew(place, key, pem(mine), csr(key))
        assert refused.value.fault.code == "LL2029"
        assert refused.value.retry_after_s == pytest.approx(advised_s)
    await renew(place, other, pem(others), csr(other))
    assert {record["code"] for record in place.audit.of("renewal_refused")} == {"LL2029"}
    now_s = 30.1
    await renew(place, key, pem(mine), csr(key))
    assert len(place.audit.of("renewed")) == RENEWALS.at_once + 2
    with pytest.raises(EnrollmentRefused):
        await renew(place, key, pem(mine), csr(key))
    again = ec.generate_private_key(ec.SECP256R1())
    (new,) = (await join(place, await token_of(place), csr(again))).chain_der
    await renew(place, again, pem(new), csr(again))  # another box, with a burst of its own


async def test_a_token_that_is_shown_again_and_again_is_told_to_wait_and_no_other(
    place: Office, key: ec.EllipticCurvePrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    real = TokenBuckets.take
    monkeypatch.setattr(TokenBuckets, "take", lambda self, who, _now, more=0: real(self, who, now_s, more))
    asked: list[str] = []
    sign = Signer.sign

    async def counted(signer: Signer, name: str, csr_der: bytes, shown_der: bytes) -> Signed:
        asked.append(name)
        return await sign(signer, name, csr_der, shown_der)

    monkeypatch.setattr(Signer, "sign", counted)
    token, other = await token_of(place), await token_of(place, "box-8")
    for _ in range(JOINS.at_once + 1):
        with pytest.raises(EnrollmentRefused, match="cannot be read"):
            await join(place, token, b"rubbish")
    for _ in range(2):
        with pytest.raises(EnrollmentRefused, match=r"tried too often: .* still good") as refused:
            await join(place, token, csr(key))
        assert refused.value.fault.code == "LL2029"
        assert refused.value.retry_after_s == pytest.approx(30.0)
    assert asked == ["box-7"] * (JOINS.at_once + 1), "the signing process is not asked"
    assert place.audit.of("join_refused")[-1]["code"] == "LL2029"
    await join(place, other, csr(ec.generate_private_key(ec.SECP256R1())))
    now_s = 30.1
    await join(place, token, csr(key))


async def test_a_token_for_many_boxes_lets_them_all_come_at_once(place: Office) -> None:
    count = JOINS.at_once + 5
    token = await place.tokens.create(Issuer(place.authority), "lyon-*", HOUR, count=count)
    tls = ClientTls(certificate=token.certificate_pem, key=token.key_pem, ca=token.ca_pem)
    asked = [
        call_join(
            place.address,
            tls,
            tunnel_pb2.JoinRequest(csr_der=csr(ec.generate_private_key(ec.SECP256R1())), agent_name=f"lyon-{number}"),
            DIRECT,
        )
        for number in range(count)
    ]
    assert len(await asyncio.gather(*asked)) == count


@pytest.mark.parametrize(("count", "used", "at_once"), [(1, 0, 2), (3, 0, 3), (4, 1, 3), (3, 3, 2), (1000, 0, 16)])
async def test_a_token_may_have_as_many_requests_as_boxes_can_still_join_with_it(
    place: Office, count: int, used: int, at_once: int
) -> None:
    assert place.server is not None
    running = place.server.requests
    token = await place.tokens.create(Issuer(place.authority), "lyon-*", HOUR, count=count)
    for number in range(used):
        await join(place, token, csr(ec.generate_private_key(ec.SECP256R1())), f"lyon-{number}")
    async with unfinished_joins(place.address, token, at_once):
        await eventually(lambda: running.running == at_once)
        with pytest.raises(EnrollmentRefused, match="too many requests at once by spiffe://longline/join/") as refused:
            await join(place, token, b"")
        assert refused.value.fault is TOO_MANY_CLIENTS
        other = await token_of(place)
        await join(place, other, csr(ec.generate_private_key(ec.SECP256R1())))
    await eventually(lambda: running.running == 0)


async def test_a_join_certificate_cannot_renew_and_an_agents_cannot_join(
    place: Office, key: ec.EllipticCurvePrivateKey
) -> None:
    token = await token_of(place)
    join_key = serialization.load_pem_private_key(token.key_pem, None)
    assert isinstance(join_key, ec.EllipticCurvePrivateKey)
    with pytest.raises(EnrollmentRefused, match="takes role 'agent'"):
        await renew(place, join_key, token.certificate_pem, csr(join_key))
    (certificate,) = (await join(place, token, csr(key))).chain_der
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    tls = ClientTls(certificate=pem(certificate), key=secret, ca=place.authority.pem)
    with pytest.raises(EnrollmentRefused, match="takes role 'join'"):
        await call_join(place.address, tls, tunnel_pb2.JoinRequest(csr_der=csr(key)), DIRECT)


async def test_a_token_that_a_stranger_made(place: Office, key: ec.EllipticCurvePrivateKey) -> None:
    forged = Authority().issue(uris=["spiffe://longline/join/0123"])
    tls = ClientTls(certificate=forged.certificate_pem, key=forged.key_pem, ca=place.authority.pem)
    with pytest.raises(CarrierLost, match="certificate"):
        await call_join(place.address, tls, tunnel_pb2.JoinRequest(csr_der=csr(key)), DIRECT)


async def test_a_disk_that_is_full_costs_no_token(place: Office, key: ec.EllipticCurvePrivateKey) -> None:
    token = await token_of(place)
    writer = place.store._database._writer
    assert writer is not None
    await asyncio.to_thread(writer.execute, "PRAGMA query_only = ON")
    with pytest.raises(EnrollmentRefused, match=r"cannot write its state folder; .* the token is still good"):
        await join(place, token, csr(key))
    assert place.agents.get("box-7") is None
    await asyncio.to_thread(writer.execute, "PRAGMA query_only = OFF")
    await join(place, token, csr(key))


async def test_an_authority_that_cannot_sign_costs_no_token(place: Office, key: ec.EllipticCurvePrivateKey) -> None:
    token = await token_of(place)
    hidden = place.state / "ca.key.hidden"
    await asyncio.to_thread((place.state / "ca.key").rename, hidden)
    with pytest.raises(EnrollmentRefused, match=r"cannot sign certificates; .* the token is still good"):
        await join(place, token, csr(key))
    await asyncio.to_thread(hidden.rename, place.state / "ca.key")
    await join(place, token, csr(key))


async def test_of_two_boxes_with_one_token_exactly_one_gets_a_certificate_that_works(place: Office) -> None:
    token = await token_of(place)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(4)]
    assert place.server is not None
    place.server.use(CarrierLimits(requests_per_identity=len(keys)))  # as many as are let in ask at the same moment
    outcomes = await asyncio.gather(*(join(place, token, csr(key)) for key in keys), return_exceptions=True)
    joined = [(key, answer) for key, answer in zip(keys, outcomes, strict=True) if not isinstance(answer, Exception)]
    assert len(joined) == 1
    assert all("was used already" in str(refused) for refused in outcomes if isinstance(refused, Exception))
    ((key, answer),) = joined
    assert not isinstance(answer, BaseException)
    await renew(place, key, pem(answer.chain_der[0]), csr(key))
    assert place.agents.validity("box-7") is not None


async def test_a_token_whose_record_cannot_be_read_is_not_used_up(
    place: Office, key: ec.EllipticCurvePrivateKey
) -> None:
    token = await token_of(place)
    (record,) = place.store.list(JOIN_TOKENS)
    rubbish: Kind[bytes] = Kind(JOIN_TOKENS.name, bytes, bytes)
    await place.store.commit(Change(rubbish, record.key, b"{"))
    with pytest.raises(EnrollmentRefused, match="the token is still good"):
        await join(place, token, csr(key))
    await place.store.commit(Change(JOIN_TOKENS, record.key, value_of(record)))
    await join(place, token, csr(key))
