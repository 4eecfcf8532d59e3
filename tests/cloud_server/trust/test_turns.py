"""Renewals that count, new keys, and recoveries: over real gRPC and TLS, with the signing process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.lists import agent_line
from cloud_server.operate.events import EventBook
from cloud_server.trust.administration import ListedAgent
from cloud_server.trust.agents import IdentityRejected
from cloud_server.trust.ca import key_pem, spki_sha256
from cloud_server.trust.enrollment import RENEWALS
from cloud_server.trust.records import AGENTS, AgentRecord
from cloud_server.trust.turns import MAX_LEAD
from protos import tunnel_pb2
from tests.support.carriers import DIRECT
from tests.support.enrolling import Office, open_office
from tunnel.aio.carriers.carrier_errors import EnrollmentRefused
from tunnel.aio.carriers.enrollment import call_join, call_recover, call_renew
from tunnel.aio.identity.certificate import read_certificate
from tunnel.aio.identity.keys import request_for
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.core.wire.faults import COPIED_DISK, RENEWAL_AHEAD, RENEWED_TOO_OFTEN

Key = ec.EllipticCurvePrivateKey
FIRST, SECOND = b"1" * 16, b"2" * 16


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path / "cloud") as made:
        yield made


class Box:
    """What a box has on its disk, without a disk."""

    def __init__(self, place: Office, joined: tunnel_pb2.JoinResponse, key: Key) -> None:
        self.place = place
        self.key = key
        self.certificate = joined.chain_der[0]
        self.recovery = joined.recovery_der

    async def ask(
        self, generation: int | None, nonce: bytes, *, key: Key | None = None, recover: bool = False
    ) -> tunnel_pb2.RenewResponse:
        wanted = key or self.key
        csr = await asyncio.to_thread(request_for, key_pem(wanted))
        request = tunnel_pb2.RenewRequest(csr_der=csr, new_key=wanted is not self.key)
        if generation is not None:
            request.turn.generation, request.turn.nonce = generation, nonce
        call, der = (call_recover, self.recovery) if recover else (call_renew, self.certificate)
        tls = ClientTls(certificate=pem(der), key=key_pem(self.key), ca=self.place.authority.pem)
        return await call(self.place.address, tls, request, DIRECT)

    async def comes(self, certificate_der: bytes, key: Key | None = None) -> None:
        """A Connect, as far as its certificate goes."""
        end = read_certificate(certificate_der).validity.not_after
        await self.place.agents.check("box-7", spki_sha256((key or self.key).public_key()), end)


def pem(der: bytes) -> bytes:
    import ssl

    return ssl.DER_cert_to_PEM_cert(der).encode()


@pytest.fixture
async def box(place: Office) -> Box:
    token, key = await place.token(), ec.generate_private_key(ec.SECP256R1())
    tls = ClientTls(certificate=token.certificate_pem, key=token.key_pem, ca=token.ca_pem)
    csr = await asyncio.to_thread(request_for, key_pem(key))
    return Box(place, await call_join(place.address, tls, tunnel_pb2.JoinRequest(csr_der=csr), DIRECT), key)


def record(place: Office) -> AgentRecord:
    found = place.agents.get("box-7")
    assert found is not None
    return found


async def test_a_renewal_counts_up_and_the_second_copy_is_refused(place: Office, box: Box) -> None:
    assert (await box.ask(0, FIRST)).generation == 1
    with pytest.raises(EnrollmentRefused) as refused:
        await box.ask(0, SECOND)
    assert refused.value.fault is COPIED_DISK
    noted = record(place)
    assert (noted.generation, noted.nonce, noted.copied is not None) == (1, FIRST.hex(), True)
    assert (await box.ask(1, SECOND)).generation == 2


async def test_a_lost_answer_is_asked_for_again_until_it_was_taken(place: Office, box: Box) -> None:
    await box.ask(0, FIRST)
    again = await box.ask(0, FIRST)
    assert again.generation == 1
    before = read_certificate(box.certificate).validity.not_after - timedelta(seconds=1)
    await place.agents.check("box-7", spki_sha256(box.key.public_key()), before)
    assert not record(place).taken, "it came with the one of before: that answer may be lost, too"
    await box.comes(again.chain_der[0])
    assert record(place).taken
    with pytest.raises(EnrollmentRefused, match="copy"):
        await box.ask(0, FIRST)


async def test_a_server_whose_records_are_of_an_earlier_day_locks_nobody_out(place: Office, box: Box) -> None:
    told = events_of(place)
    assert (await box.ask(7, FIRST)).generation == 8
    assert (record(place).generation, record(place).lead) == (8, 7)
    assert (await box.ask(8, SECOND)).generation == 9
    assert (await box.ask(9 + MAX_LEAD, FIRST)).generation == 10 + MAX_LEAD
    assert told() == [(7, "box-7"), (MAX_LEAD, "box-7")], "and nothing of one that is not ahead"


@pytest.mark.parametrize("recover", [False, True])
async def test_a_number_that_is_far_ahead_is_refused_and_told(place: Office, box: Box, recover: bool) -> None:
    told = events_of(place)
    await box.ask(0, FIRST)
    for generation in (2 + MAX_LEAD, 2**64 - 2, 2**64 - 1):
        with pytest.raises(EnrollmentRefused, match="renewals more than the server has kept") as refused:
            await box.ask(generation, SECOND, recover=recover)
        assert refused.value.fault is RENEWAL_AHEAD
    assert told() == [(MAX_LEAD + 1, "box-7")], "once a minute"
    kept = record(place)
    assert (kept.generation, kept.nonce, kept.copied) == (1, FIRST.hex(), None)
    listed = ListedAgent(name="box-7", record=kept, unreadable="", sighting=None)
    assert "asked with a number 21 ahead" in agent_line(listed, datetime.now(UTC))
    assert (await box.ask(1, SECOND)).generation == 2, "the box itself goes on"


async def test_who_has_counted_says_which_renewal_it_is(place: Office, box: Box) -> None:
    await box.ask(None, b"")
    await box.ask(0, FIRST)
    with pytest.raises(EnrollmentRefused, match="does not say which it is") as refused:
        await box.ask(None, b"")
    assert refused.value.fault is COPIED_DISK
    assert record(place).copied is not None
    with pytest.raises(EnrollmentRefused, match="does not say which it is"):
        await box.ask(None, b"", key=ec.generate_private_key(ec.SECP256R1()))
    assert record(place).next_spki_sha256 == ""


def events_of(place: Office) -> Callable[[], list[tuple[int, str]]]:
    """What the events tell of numbers that are ahead, from now on: by how much, and whose."""
    book = EventBook(0)
    place.agents.when_changed(book.agent_record)

    def told() -> list[tuple[int, str]]:
        found = [event for event in book.since(0) if event.kind == "ahead"]
        assert all(event.text.startswith("LL2055: ") for event in found)
        return [(int(event.text.split(" is ")[1].split()[0]), event.agent) for event in found]

    return told


async def test_of_two_copies_that_ask_at_once_exactly_one_gets_a_certificate(box: Box) -> None:
    answers = await asyncio.gather(*(box.ask(0, os.urandom(16)) for _ in range(2)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["EnrollmentRefused", "RenewResponse"]


async def test_a_nonce_has_its_length(box: Box) -> None:
    with pytest.raises(EnrollmentRefused, match="16 bytes"):
        await box.ask(0, b"short")


async def test_a_recovery_is_counted_once_and_opens_nothing_else(place: Office, box: Box) -> None:
    answer = await box.ask(0, FIRST, recover=True)
    await box.ask(0, FIRST, recover=True)
    assert (record(place).recoveries, record(place).generation) == (1, 1)
    assert (record(place).recovered or datetime.min.replace(tzinfo=UTC)) <= datetime.now(UTC)
    box.certificate = box.recovery
    with pytest.raises(EnrollmentRefused, match="may not do this"):
        await box.ask(1, SECOND)
    box.certificate, box.recovery = answer.chain_der[0], answer.chain_der[0]
    with pytest.raises(EnrollmentRefused, match="may not do this"):
        await box.ask(1, SECOND, recover=True)


async def test_a_recovery_is_for_the_same_key_and_for_a_name_that_is_good(place: Office, box: Box) -> None:
    with pytest.raises(EnrollmentRefused, match="another key"):
        await box.ask(0, FIRST, key=ec.generate_private_key(ec.SECP256R1()), recover=True)
    await place.agents.revoke("box-7")
    with pytest.raises(EnrollmentRefused, match="was revoked"):
        await box.ask(0, FIRST, recover=True)
    await place.agents.forget("box-7")
    with pytest.raises(EnrollmentRefused, match="has not joined"):
        await box.ask(0, FIRST, recover=True)


async def test_recoveries_have_a_bound_for_each_agent(box: Box) -> None:
    for generation in range(RENEWALS.at_once):
        await box.ask(generation, FIRST, recover=True)
    with pytest.raises(EnrollmentRefused) as refused:
        await box.ask(RENEWALS.at_once, FIRST, recover=True)
    assert refused.value.fault is RENEWED_TOO_OFTEN


async def test_a_new_key_takes_the_old_ones_place_when_it_is_seen(place: Office, box: Box) -> None:
    new, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    rejoined: list[tuple[str, bool]] = []
    place.agents.when_joined(lambda name, anew: rejoined.append((name, anew)))
    answer = await box.ask(0, FIRST, key=new)
    await box.comes(box.certificate)  # the old one holds: the answer may be lost
    again = await box.ask(0, FIRST, key=new)
    assert again.generation == answer.generation
    await box.comes(again.chain_der[0], new)
    assert record(place).spki_sha256 == spki_sha256(new.public_key()).hex()
    assert record(place).rotated is not None
    for stale in (box.key, other):
        with pytest.raises(IdentityRejected, match="belongs to another key"):
            await box.comes(box.certificate, stale)
    assert rejoined == [], "it is the same box"


async def test_a_rotation_that_the_box_gave_up_leaves_the_old_key(place: Office, box: Box) -> None:
    new = ec.generate_private_key(ec.SECP256R1())
    await box.ask(0, FIRST, key=new)
    kept = await box.ask(1, SECOND)
    await box.comes(kept.chain_der[0])
    with pytest.raises(IdentityRejected, match="belongs to another key"):
        await box.comes(kept.chain_der[0], new)
    assert record(place).next_spki_sha256 == ""


async def test_of_two_rotations_at_once_one_is_kept(place: Office, box: Box) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    asked = (box.ask(0, os.urandom(16), key=key) for key in keys)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    (index,) = [number for number, answer in enumerate(answers) if isinstance(answer, tunnel_pb2.RenewResponse)]
    assert record(place).next_spki_sha256 == spki_sha256(keys[index].public_key()).hex()


def test_a_record_is_read_back_as_it_was_written() -> None:
    now = datetime.now(UTC)
    full = AgentRecord(
        name="box-7", joined=now, spki_sha256="00", authority="aa", trusts=("aa", "bb"), taken=True,
        next_spki_sha256="01", rotated=now, generation=3, nonce="11", recoveries=2, recovered=now, copied=now,
        ahead=now, lead=2**64 - 1,
    )  # fmt: skip
    assert AGENTS.decode(AGENTS.encode(full)) == full
