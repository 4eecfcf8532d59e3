"""Users of a store: known at once, kept in no form that could be shown, bounded, and taken away with a reason."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud_server.lists import token_line
from cloud_server.trust import user_administration
from cloud_server.trust.administration import Administration
from cloud_server.trust.administration_failed import AdministrationFailed
from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.authenticator import Authenticator, Login, LoginRefused, token_digest
from cloud_server.trust.ca import authority_id
from cloud_server.trust.database import DATABASE_FILE
from cloud_server.trust.records import (
    BEARER,
    LAST_USED,
    LOGIN,
    USER_CERTIFICATES,
    USER_TOKENS,
    USERS,
    UserCertificate,
    UserRecord,
    UserToken,
)
from cloud_server.trust.signer import Signed
from cloud_server.trust.store import Change
from cloud_server.trust.user_administration import CERTIFICATE_LIFE, KEPT_OF_A_LOGIN, UserAdministration
from cloud_server.trust.users import Users
from tests.support.enrolling import Office, office
from tests.support.state import opened
from tunnel.aio.identity.keys import new_key, request_for
from tunnel.aio.identity.validity import Standing

HOUR = timedelta(hours=1)
NOW = datetime.now(UTC)


class InProcess:
    """What the signing process does for users, in this process: it takes its time to start."""

    def __init__(self, place: Office) -> None:
        self._place = place
        self.lives: list[timedelta] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        """What happens while it signs; None: nothing."""

    async def sign_user(self, name: str, csr_der: bytes, life: timedelta) -> Signed:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        self.lives.append(life)
        if self.meanwhile is not None:
            await self.meanwhile()
        key = x509.load_der_x509_csr(csr_der).public_key()
        pem = self._place.authority.issue_user(name, key, life)  # type: ignore[arg-type]
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        authority = self._place.authority
        return Signed(der, authority.pem, (authority_id(authority.certificate),), (), b"")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    made = await asyncio.to_thread(office, tmp_path)
    yield made
    await made.store.aclose()


@pytest.fixture
def signer(place: Office) -> InProcess:
    return InProcess(place)


@pytest.fixture
def administration(place: Office, signer: InProcess) -> UserAdministration:
    return UserAdministration(place.store, Users(place.store), signer)  # type: ignore[arg-type]


def code_of(ask: Callable[[], object]) -> str:
    with pytest.raises(LoginRefused) as caught:
        ask()
    return caught.value.fault.code


async def test_what_a_command_hands_out_is_known_at_once_and_kept_by_nobody(place: Office) -> None:
    authenticator = Authenticator("longline", Users(place.store))
    async with opened(place.state) as other:
        command = UserAdministration(other, Users(other), None)
        await command.add("ann", ["ops"], "root")
        text, token = await command.create_token("ann", "root", life=HOUR)
        login, _ = await command.create_token("ann", "root", purpose=LOGIN)
    caller = authenticator.by_token(text)
    assert caller is not None
    assert (caller.name, caller.principal.groups, caller.until) == ("ann", ("ops",), token.expires)
    assert authenticator.by_login(login) is not None
    assert code_of(lambda: authenticator.by_token("other")) == "LL2040"
    kept = b"".join([await asyncio.to_thread(path.read_bytes) for path in place.state.glob(f"{DATABASE_FILE}*")])
    assert token_digest(text).encode() in kept
    assert text.encode() not in kept
    assert login.encode() not in kept


async def test_whom_a_command_takes_in_again_is_no_more_called_revoked(
    place: Office, administration: UserAdministration
) -> None:
    await administration.add("ann", [], "root")
    text, _ = await administration.create_token("ann", "root")
    await administration.revoke("ann")
    authenticator = Authenticator("longline", Users(place.store))
    assert code_of(lambda: authenticator.by_token(text)) == "LL2041"
    async with opened(place.state) as other:
        await UserAdministration(other, Users(other), None).add("ann", [], "root")
    assert code_of(lambda: authenticator.by_token(text)) == "LL2042"


async def test_wrong_tokens_read_no_records(place: Office) -> None:
    authenticator = Authenticator("longline", Users(place.store))
    assert code_of(lambda: authenticator.by_token("wrong")) == "LL2040"
    statements: list[str] = []
    reader = place.store._database._reader
    assert reader is not None
    reader.set_trace_callback(statements.append)
    for count in range(100):
        assert code_of(lambda count=count: authenticator.by_token(f"wrong {count}")) == "LL2040"  # type: ignore[misc]
    assert set(statements) == {"PRAGMA data_version"}


async def test_a_certificate_of_a_login_ends_with_it(
    place: Office, administration: UserAdministration, signer: InProcess
) -> None:
    authenticator = Authenticator("longline", Users(place.store))
    await administration.add("ann", [], "root")
    text, token = await administration.create_token("ann", "root", purpose=LOGIN, life=2 * HOUR)
    login = authenticator.by_login(text)
    assert login is not None
    csr = request_for(new_key())
    made = await administration.login(login, csr)
    assert timedelta(0) < 2 * HOUR - signer.lives[0] < timedelta(minutes=1)  # shorter than 12 hours, as the login is
    ann = "spiffe://longline/user/ann"
    assert authenticator.by_certificate(ann, made.serial) is not None
    caller = authenticator.by_certificate(ann, made.serial)
    assert caller is not None
    assert authenticator.again(caller) is caller
    changed: list[str] = []
    Users(place.store).when_changed(changed.append)
    await place.store.commit(Change(USER_TOKENS, token.sha256, None))
    assert changed == ["ann"]
    assert code_of(lambda: authenticator.again(caller)) == "LL2040"
    assert code_of(lambda: authenticator.by_certificate(ann, made.serial)) == "LL2040"
    operators = await administration.create_certificate("ann", csr, "root")
    assert signer.lives[-1] == CERTIFICATE_LIFE
    assert authenticator.by_certificate(ann, operators.serial) is not None


async def test_a_login_that_keeps_nothing_is_bounded(place: Office, administration: UserAdministration) -> None:
    await administration.add("ann", [], "root")
    text, token = await administration.create_token("ann", "root", purpose=LOGIN)
    login = Authenticator("longline", Users(place.store)).by_login(text)
    assert isinstance(login, Login)
    csr = request_for(new_key())
    newest = await administration.login(login, csr)
    for _ in range(user_administration.CERTIFICATES_AT_ONCE - 1):
        newest = await administration.login(login, csr)
    with pytest.raises(AdministrationFailed) as refused:
        await administration.login(login, csr)
    assert refused.value.fault.code == "LL2047"
    for count in range(2 * KEPT_OF_A_LOGIN):
        old = UserCertificate(
            serial=f"0{count}", user="ann", created=NOW - HOUR, expires=NOW + HOUR, login=token.sha256
        )
        await place.store.commit(Change(USER_CERTIFICATES, old.serial, old))
    administration._pace.forget("ann")
    last = await administration.login(login, csr)
    kept = {record.key for record in place.store.list(USER_CERTIFICATES)}
    assert len(kept) == KEPT_OF_A_LOGIN
    assert {newest.serial, last.serial} <= kept


async def test_use_is_noted_by_the_hour_and_written_together(place: Office, administration: UserAdministration) -> None:
    users = Users(place.store)
    authenticator = Authenticator("longline", users)
    await administration.add("ann", [], "root")
    text, token = await administration.create_token("ann", "root")
    assert users.last_used(token.sha256) is None
    for _ in range(3):
        authenticator.by_token(text)
    users.used("nobody's")
    assert place.store.list(LAST_USED) == []
    hour = users.last_used(token.sha256)
    assert hour is not None
    assert (hour.minute, hour.second, timedelta(0) <= datetime.now(UTC) - hour < HOUR) == (0, 0, True)
    await users.write()
    assert [record.key for record in place.store.list(LAST_USED)] == [token.sha256]
    version = place.store.list(LAST_USED)[0].version
    authenticator.by_token(text)
    await users.write()
    assert place.store.list(LAST_USED)[0].version == version
    assert Users(place.store).last_used(token.sha256) == hour


async def test_what_is_long_over_leaves_the_list(place: Office) -> None:
    for days, key in ((31, "old"), (29, "late"), (-1, "good")):
        end = NOW - timedelta(days=days)
        token = UserToken(user="ann", sha256=key, created=NOW - timedelta(days=90), expires=end)
        await place.store.commit(Change(USER_TOKENS, key, token))
    for hours, serial in ((25, "a1"), (23, "a2"), (-1, "a3")):
        one = UserCertificate(serial=serial, user="ann", created=NOW - 48 * HOUR, expires=NOW - hours * HOUR)
        await place.store.commit(Change(USER_CERTIFICATES, serial, one))
    assert await Users(place.store).tidy() == 2
    assert [record.key for record in place.store.list(USER_TOKENS)] == ["good", "late"]
    assert [record.key for record in place.store.list(USER_CERTIFICATES)] == ["a2", "a3"]


async def test_certificates_of_machines_are_watched_until_others_took_their_place(
    place: Office, administration: UserAdministration
) -> None:
    users = Users(place.store)

    async def made(serial: str, ago_days: int, until_days: float, *, user: str = "kas", login: str = "") -> None:
        begin, end = NOW - timedelta(days=ago_days), NOW + timedelta(days=until_days)
        one = UserCertificate(serial=serial, user=user, created=begin, expires=end, login=login)
        await place.store.commit(Change(USER_CERTIFICATES, serial, one))

    for name, revoked in (("kas", None), ("gone", NOW)):
        user = UserRecord(name=name, created=NOW, valid_from=NOW - timedelta(days=99), revoked=revoked)
        await place.store.commit(Change(USERS, name, user))
    await made("a1", 90, 5)
    await made("a2", 90, 5, login="the hash of a login")
    await made("a3", 0, 0.5)
    await made("a4", 90, 5, user="gone")
    await made("a5", 100, 5)
    (watched,) = users.lasting()
    assert (watched.name, watched.standing(NOW)) == ("user kas a1", Standing.SOON)
    assert "cloud-server user certificate kas" in watched.told(NOW)
    await made("b1", 0, 90)
    assert [one.name for one in users.lasting()] == ["user kas b1"]
    users.used("a1")
    await made("b1", 1, 90)
    assert [one.name for one in users.lasting()] == ["user kas a1", "user kas b1"], "the first is in use still"


async def test_logins_and_tokens_are_watched_until_they_end_or_others_took_their_place(
    place: Office, administration: UserAdministration
) -> None:
    users = Users(place.store)
    await administration.add("ann", [], "root")

    async def made(sha256: str, ago_days: int, until_days: float, purpose: str) -> None:
        begin, end = NOW - timedelta(days=ago_days), NOW + timedelta(days=until_days)
        one = UserToken(user="ann", sha256=sha256, created=begin, expires=end, purpose=purpose)
        await place.store.commit(Change(USER_TOKENS, sha256, one))

    user = UserRecord(name="ann", created=NOW, valid_from=NOW - timedelta(days=99))
    await place.store.commit(Change(USERS, "ann", user))
    await made("a" * 64, 80, 6, LOGIN)
    await made("b" * 64, 95, -1, LOGIN)
    await made("c" * 64, 80, 6, BEARER)
    await made("d" * 64, 1, 89, BEARER)
    assert [(one.name, one.standing(NOW)) for one in users.lasting()] == [
        ("user ann aaaaaaaa", Standing.SOON),
        ("user ann dddddddd", Standing.GOOD),
    ]
    assert "cloud-server user kubeconfig ann" in users.lasting()[0].told(NOW)


async def test_a_record_that_cannot_be_read_is_no_revocation(place: Office, administration: UserAdministration) -> None:
    await administration.add("ann", ["ops"], "root")
    text, _ = await administration.create_token("ann", "root")
    users = Users(place.store)
    async with opened(place.state) as other:
        await other._calls.run(lambda: _spoil(other._database))
    place.store.catch_up()
    caller = Authenticator("longline", users).by_token(text)
    assert caller is not None  # what was known stands
    assert caller.principal.groups == ("ops",)
    async with opened(place.state) as other:
        assert code_of(lambda: Authenticator("longline", Users(other)).by_token(text)) == "LL2025"
        (listed,) = UserAdministration(other, Users(other), None).all()
        assert (listed.record, listed.unreadable != "") == (None, True)


def _spoil(database: object) -> None:
    from cloud_server.trust.database import Database, Write

    assert isinstance(database, Database)
    database.commit([Write(USERS.name, "ann", b"{")])


async def test_a_certificate_that_was_signed_while_its_user_was_revoked_and_taken_in_again(
    place: Office, administration: UserAdministration, signer: InProcess
) -> None:
    await administration.add("ann", (), "root")
    authenticator = Authenticator("longline", Users(place.store))
    text, _ = await administration.create_token("ann", "root", purpose=LOGIN)
    login = authenticator.by_login(text)
    assert login is not None
    csr = await asyncio.to_thread(lambda: request_for(new_key()))

    async def revoke() -> None:
        await administration.revoke("ann")
        await administration.add("ann", (), "root")

    signer.meanwhile = revoke
    by_login = await administration.login(login, csr)
    by_operator = await administration.create_certificate("ann", csr, "root")
    signer.meanwhile = None
    later = await administration.login(login, csr)  # by somebody who was let in before
    for made in (by_login, by_operator, later):
        shown = ("spiffe://longline/user/ann", made.serial)
        assert code_of(lambda shown=shown: authenticator.by_certificate(*shown)) == "LL2042"  # type: ignore[misc]
    assert administration.one("ann").credentials == []


async def test_a_certificate_can_be_taken_away_alone(
    place: Office, administration: UserAdministration, signer: InProcess
) -> None:
    users = Users(place.store)
    whole = Administration(place.store, JoinedAgents(place.store, pins_unknown=False), None, users)
    await administration.add("ann", (), "root")
    csr = await asyncio.to_thread(lambda: request_for(new_key()))
    made, kept = [await administration.create_certificate("ann", csr, "root", timedelta(days=365)) for _ in range(2)]
    text, _ = await administration.create_token("ann", "root", purpose=LOGIN)
    login = Authenticator("longline", users).by_login(text)
    assert login is not None
    by_login = await administration.login(login, csr)
    listed = {one.token_id: one for one in whole.tokens()}
    assert {one.serial for one in (made, kept)} < listed.keys()
    assert by_login.serial not in listed  # it goes with its login
    assert token_line(listed[made.serial], NOW).startswith(f"{made.serial}\tcertificate of ann\tmade ")
    lost: list[str] = []
    users.when_changed(lost.append)
    as_openssl = ":".join(re.findall("..", made.serial.upper().rjust(len(made.serial) + len(made.serial) % 2, "0")))
    assert await whole.revoke_tokens(token_id=as_openssl) == (0, 1)
    assert lost == ["ann"]
    authenticator = Authenticator("longline", users)
    assert code_of(lambda: authenticator.by_certificate("spiffe://longline/user/ann", made.serial)) == "LL2040"
    assert authenticator.by_certificate("spiffe://longline/user/ann", kept.serial) is not None
    assert await whole.revoke_tokens(token_id=by_login.serial) == (0, 1)
    with pytest.raises(AdministrationFailed, match="no token or certificate"):
        await whole.revoke_tokens(token_id=made.serial)
    for nothing in (":", "0", "::", *map(format, range(16), "x" * 16), kept.serial[:3]):
        with pytest.raises(AdministrationFailed):
            await whole.revoke_tokens(token_id=nothing)
