"""A key that is replaced, an answer that is refused, and a box that comes back after its end: whatever gets lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.trust import ca
from cloud_server.trust.ca import CertificateAuthority, spki_sha256
from cloud_server.trust.rollover import add, move
from edge_agent.identity.certificates import AnswerRefused, next_key
from edge_agent.identity.identity import Identity
from edge_agent.identity.join import join
from edge_agent.identity.renewal import Renewals
from protos import tunnel_pb2
from tests.support.carriers import DIRECT
from tests.support.enrolling import Office, open_office, public_key_of
from tests.support.waits import eventually
from tunnel.aio.carriers import enrollment
from tunnel.aio.carriers.carrier_errors import CarrierLost, EnrollmentRefused
from tunnel.aio.identity.certificate import pem_blocks, read_pem
from tunnel.aio.sockets.http_proxy import VARIABLES
from tunnel.core.wire.faults import ANSWER_REFUSED, BOX_NOT_ACCEPTED, COPIED_DISK, Fault


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path / "cloud") as made:
        yield made


@pytest.fixture
async def identity(place: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Identity:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    await join(place.address, await place.token(), tmp_path / "box", "1")
    found = Identity(tmp_path / "box")
    # An older one: certificates of the same second cannot be told apart by their ends.
    monkeypatch.setattr(ca, "AGENT_LIFE", timedelta(days=5))
    await asyncio.to_thread(
        lambda: found.certificate_path.write_bytes(place.authority.issue_agent("box-7", public_key_of(found)))
    )
    monkeypatch.setattr(ca, "AGENT_LIFE", timedelta(days=7))
    return found


def renewals(place: Office, identity: Identity, told: list[Fault | None] | None = None) -> Renewals:
    heard = told if told is not None else []
    return Renewals(identity, lambda: ([place.address], DIRECT), on_fault=lambda fault, _text: heard.append(fault))


def files(identity: Identity) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in identity.folder.iterdir() if path.is_file()}


def put_back(identity: Identity, before: dict[str, bytes]) -> None:
    for path in identity.folder.iterdir():
        if path.is_file():
            path.unlink()
    for name, data in before.items():
        (identity.folder / name).write_bytes(data)


async def comes(place: Office, identity: Identity) -> None:
    """The box connects with what it has."""
    certificate = await asyncio.to_thread(identity.certificate)
    key = await asyncio.to_thread(public_key_of, identity)
    await place.agents.check("box-7", spki_sha256(key), certificate.validity.not_after)


async def test_a_key_is_replaced(place: Office, identity: Identity) -> None:
    before = await asyncio.to_thread(files, identity)
    await renewals(place, identity).renew(new_key=True)
    after = await asyncio.to_thread(files, identity)
    assert after["agent.key"] != before["agent.key"]
    assert "agent-next.key" not in after
    assert await asyncio.to_thread(identity.fits, identity.recovery_path, after["agent.key"])
    await comes(place, identity)
    record = place.agents.get("box-7")
    assert record is not None
    assert record.rotated is not None
    await renewals(place, identity).renew(new_key=False)
    await comes(place, identity)


@pytest.mark.parametrize("renames", range(6))
async def test_a_crash_between_any_two_files_leaves_a_box_that_works(
    place: Office, identity: Identity, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """The disk goes away behind so many renames, of which the first is that of the nonce."""
    done = 0
    real = Path.replace

    def replace(path: Path, target: Any) -> Path:
        nonlocal done
        if done > renames:
            raise OSError("the power is gone")
        done += 1
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="power"):
            await renewals(place, identity).renew(new_key=True)
    assert await asyncio.to_thread(identity.name) == "box-7"
    await asyncio.to_thread(identity.settle)
    await comes(place, identity)
    again = renewals(place, identity)
    await again.renew(new_key=identity.next_key_path.exists())
    await comes(place, identity)
    assert not await asyncio.to_thread(identity.next_key_path.exists)


@pytest.mark.parametrize("new_key", [False, True])
async def test_an_answer_that_is_lost_is_asked_for_again_and_is_no_copy(
    place: Office, identity: Identity, monkeypatch: pytest.MonkeyPatch, new_key: bool
) -> None:
    real = enrollment.call_renew

    async def lost(*arguments: Any) -> tunnel_pb2.RenewResponse:
        await real(*arguments)
        raise CarrierLost("the link broke")

    with monkeypatch.context() as patch:
        patch.setattr(enrollment, "call_renew", lost)
        for _ in range(2):
            with pytest.raises(CarrierLost):
                await renewals(place, identity).renew(new_key=new_key)
    await comes(place, identity)
    await renewals(place, identity).renew(new_key=new_key)
    await comes(place, identity)
    record = place.agents.get("box-7")
    assert record is not None
    assert (record.generation, record.copied) == (1, None)


async def test_a_pending_key_is_asked_for_at_the_next_start(place: Office, identity: Identity) -> None:
    key = await asyncio.to_thread(next_key, identity)
    task = asyncio.get_running_loop().create_task(renewals(place, identity).run())
    await eventually(lambda: not identity.next_key_path.exists())
    task.cancel()
    await asyncio.wait([task])
    assert await asyncio.to_thread(identity.key_path.read_bytes) == key


async def test_a_key_of_some_age_is_replaced_where_that_is_wanted(place: Office, identity: Identity) -> None:
    before = await asyncio.to_thread(identity.key_path.read_bytes)
    long_ago = datetime.now(UTC).timestamp() - 86400
    await asyncio.to_thread(os.utime, identity.key_path, (long_ago, long_ago))
    life: Callable[[], timedelta] = lambda: timedelta(hours=23)  # noqa: E731
    task = asyncio.get_running_loop().create_task(Renewals(identity, lambda: ([place.address], DIRECT), life).run())
    await eventually(lambda: identity.key_path.read_bytes() != before)
    task.cancel()
    await asyncio.wait([task])


async def test_a_copy_is_told_once_and_for_good(place: Office, identity: Identity) -> None:
    copy = await asyncio.to_thread(files, identity)
    await renewals(place, identity).renew(new_key=False)
    await asyncio.to_thread(put_back, identity, copy)
    told: list[Fault | None] = []
    with pytest.raises(EnrollmentRefused):
        await renewals(place, identity, told).renew(new_key=False)
    assert told == [COPIED_DISK]


class Taken:
    """What a server process says that somebody has taken."""

    def __init__(self, authority: CertificateAuthority, evil: CertificateAuthority) -> None:
        self.authority = authority
        self.evil = evil

    def answer(self, case: str, key: ec.EllipticCurvePublicKey) -> tunnel_pb2.RenewResponse:
        signer = self.evil if case == "evil" else self.authority
        elsewhere = CertificateAuthority(self.authority.certificate, self.authority._key, "elsewhere")
        name = "box-8" if case == "name" else "box-7"
        if case == "domain":
            signer = elsewhere
        if case == "key":
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
        posing = CertificateAuthority(self.evil.certificate, self.evil._key, "longline")
        if case == "unsigned":
            signer = posing
        chain = pem_blocks(signer.issue_agent(name, key))
        other = ec.generate_private_key(ec.SECP256R1()).public_key()
        (recovery,) = pem_blocks(
            {
                "recovery_unsigned": posing.issue_recovery("box-7", key),
                "recovery_name": self.authority.issue_recovery("box-8", key),
                "recovery_role": self.authority.issue_agent("box-7", key),
                "recovery_domain": elsewhere.issue_recovery("box-7", key),
                "recovery_key": self.authority.issue_recovery("box-7", other),
            }.get(case, self.authority.issue_recovery(name, key))
        )
        generation = {"behind": 0, "ahead": 2, "far": 2**64 - 1}.get(case, 1)
        ca_pem = self.authority.pem + self.evil.pem if case in ("evil", "both") else self.authority.pem
        return tunnel_pb2.RenewResponse(chain_der=chain, ca_pem=ca_pem, recovery_der=recovery, generation=generation)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("evil", "spiffe://EVIL/agent/box-7, and this box is spiffe://longline/agent/box-7"),
        ("both", "no authority that the box trusts has agreed to CN=Longline CA EVIL"),
        ("name", "is spiffe://longline/agent/box-7"),
        ("domain", "elsewhere"),
        ("key", "no certificate for this box's key"),
        ("unsigned", "none of the authorities that it named has signed"),
        ("recovery_unsigned", "none of the authorities that it named has signed"),
        ("recovery_name", "of spiffe://longline/recover/box-8 to come back with"),
        ("recovery_role", "of spiffe://longline/agent/box-7 to come back with"),
        ("recovery_domain", "of spiffe://elsewhere/recover/box-7 to come back with"),
        ("recovery_key", "no certificate for this box's key"),
        ("behind", "says that this is renewal 0, and it is 1"),
        ("ahead", "says that this is renewal 2, and it is 1"),
        ("far", "says that this is renewal 18446744073709551615, and it is 1"),
    ],
)
async def test_an_answer_of_a_taken_server_changes_nothing(
    place: Office, identity: Identity, monkeypatch: pytest.MonkeyPatch, case: str, said: str
) -> None:
    taken = Taken(place.authority, CertificateAuthority.create("EVIL"))
    key = await asyncio.to_thread(public_key_of, identity)

    async def call(*_arguments: Any) -> tunnel_pb2.RenewResponse:
        return taken.answer(case, key)

    before = await asyncio.to_thread(files, identity)
    told: list[Fault | None] = []
    box = renewals(place, identity, told)
    with monkeypatch.context() as patch:
        patch.setattr(enrollment, "call_renew", call)
        with pytest.raises(AnswerRefused, match=said):
            await box.renew(new_key=False)
    after = await asyncio.to_thread(files, identity)
    assert {name: after[name] for name in before if name != "renewals.json"} == {
        name: data for name, data in before.items() if name != "renewals.json"
    }
    assert told == [ANSWER_REFUSED]
    await box.renew(new_key=False)
    assert told == [ANSWER_REFUSED, None], "the fact is over"


async def test_a_renewed_and_a_second_authority_are_taken(place: Office, identity: Identity) -> None:
    from cloud_server.trust.renewal import renew

    await asyncio.to_thread(renew, place.state, place.authority, ["ca.crt"])
    await renewals(place, identity).renew(new_key=False)
    renewed = await asyncio.to_thread(CertificateAuthority.load, place.state, "longline")
    assert await asyncio.to_thread(identity.ca_path.read_bytes) == renewed.pem != place.authority.pem
    await asyncio.to_thread(add, place.state, "longline")
    await renewals(place, identity).renew(new_key=False)
    assert len(read_pem(await asyncio.to_thread(identity.ca_path.read_bytes))) == 2
    await asyncio.to_thread((place.state / "hosts").write_text, "cloud.example.org\n")
    moved = await asyncio.to_thread(move, place.state, "longline")
    await renewals(place, identity).renew(new_key=False)
    certificate = await asyncio.to_thread(identity.certificate)
    assert certificate.issuer_der == moved.certificate.subject.public_bytes()


async def test_a_box_that_is_not_let_in_recovers_whatever_its_clock_says(
    place: Office, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_arguments: Any) -> tunnel_pb2.RenewResponse:
        raise CarrierLost("the certificate has ended", BOX_NOT_ACCEPTED)

    before = await asyncio.to_thread(files, identity)
    monkeypatch.setattr(enrollment, "call_renew", refused)
    box = renewals(place, identity)
    task = asyncio.get_running_loop().create_task(box.run())
    box.turned_away(BOX_NOT_ACCEPTED)
    await eventually(lambda: files(identity)["agent.crt"] != before["agent.crt"])
    task.cancel()
    await asyncio.wait([task])
    await comes(place, identity)
    record = place.agents.get("box-7")
    assert record is not None
    assert record.recoveries == 1


async def test_no_recovery_for_a_link_that_is_down(
    place: Office, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_arguments: Any) -> tunnel_pb2.RenewResponse:
        raise CarrierLost("connection refused")

    async def never(*_arguments: Any) -> tunnel_pb2.RenewResponse:
        raise AssertionError("asked")

    monkeypatch.setattr(enrollment, "call_renew", away)
    monkeypatch.setattr(enrollment, "call_recover", never)
    with pytest.raises(CarrierLost):
        await renewals(place, identity).renew(new_key=False)
    assert timedelta(days=3000) < ca.RECOVERY_LIFE
