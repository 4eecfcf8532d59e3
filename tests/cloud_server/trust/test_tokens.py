"""Join tokens: once, in time, and never two boxes with one. Users' tokens: known at once, and kept by nobody."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cloud_server.trust.authenticator import Authenticator
from cloud_server.trust.database import DATABASE_FILE
from cloud_server.trust.records import JOIN_TOKENS, USER_TOKENS, JoinTokenRecord
from cloud_server.trust.store import Change, Conflict, Store
from cloud_server.trust.tokens import GRACE, JoinTokens, TokenRefused, UserTokens
from tests.support.enrolling import Office, office
from tests.support.state import opened
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.peer_identity import identify_certificate


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    made = await asyncio.to_thread(office, tmp_path)
    yield made
    await made.store.aclose()


def id_of(token: JoinToken) -> str:
    return identify_certificate(ssl.PEM_cert_to_DER_cert(token.certificate_pem.decode()), "longline").name


async def use(store: Store, token_id: str) -> str:
    """Use a token up, for nothing; returns the agent's name."""
    tokens = JoinTokens(store)
    token = tokens.look(token_id)
    await store.commit(tokens.use(token))
    return token.value.agent


async def refusal(store: Store, token_id: str) -> str:
    with pytest.raises(TokenRefused) as caught:
        await use(store, token_id)
    return str(caught.value)


async def test_a_token_works_once(place: Office) -> None:
    token = await place.token("box-7")
    assert await use(place.store, id_of(token)) == "box-7"
    assert "was used already" in await refusal(place.store, id_of(token))
    async with opened(place.state) as other:
        assert "was used already" in await refusal(other, id_of(token))


async def test_a_token_made_by_a_command_works_beside_a_running_server(place: Office) -> None:
    async with opened(place.state) as running:
        assert await use(running, id_of(await place.token("box-8"))) == "box-8"


async def test_of_many_that_try_at_once_one_succeeds(place: Office) -> None:
    token_id = id_of(await place.token())
    async with opened(place.state) as other:
        tries = [use(store, token_id) for store in (place.store, other) for _ in range(16)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == ["box-7"]
    assert {type(outcome) for outcome in outcomes if not isinstance(outcome, str)} <= {Conflict, TokenRefused}


async def test_a_token_expires_and_stays_expired(place: Office) -> None:
    token = await place.token(life=timedelta(seconds=-1))
    for _ in range(2):
        assert "expired at" in await refusal(place.store, id_of(token))


async def test_the_certificate_inside_outlives_the_token_so_that_the_box_is_told_why(place: Office) -> None:
    token = await place.token(life=timedelta(hours=1))
    certificate = x509.load_pem_x509_certificate(token.certificate_pem)
    assert certificate.not_valid_after_utc > token.expires + timedelta(days=1)
    assert abs(token.expires - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)


@pytest.mark.parametrize("token_id", ["", "0123", "../ca", "..", "a/b", "used", "\0"])
async def test_a_token_that_nobody_made(place: Office, token_id: str) -> None:
    await place.token()
    assert "is not known here" in await refusal(place.store, token_id)


async def test_tokens_that_nobody_can_show_any_more_leave_the_list(place: Office) -> None:
    now = datetime.now(UTC)
    for agent, expires in (("old", now - GRACE - timedelta(hours=1)), ("late", now - GRACE / 2), ("new", now)):
        await place.store.commit(Change(JOIN_TOKENS, agent, JoinTokenRecord(agent=agent, expires=expires)))
    async with opened(place.state) as command:  # a command takes one away that is over, unseen by the server yet
        await command.commit(Change(JOIN_TOKENS, "old", None))
    assert await place.tokens.tidy() == 1
    kept = [record.value.agent for record in place.store.list(JOIN_TOKENS)]  # type: ignore[union-attr]
    assert sorted(kept) == ["late", "new"]


async def test_the_server_keeps_nothing_that_could_be_used_as_a_token(place: Office) -> None:
    token = await place.token()
    for path in place.state.glob(f"{DATABASE_FILE}*"):
        kept = await asyncio.to_thread(path.read_bytes)
        assert b"PRIVATE" not in kept
        assert token.key_pem.splitlines()[1] not in kept
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token.ca_pem == place.authority.pem


# Users


async def test_a_users_token_made_by_a_command_is_known_at_once(place: Office) -> None:
    authenticator = Authenticator("longline", UserTokens(place.store))
    async with opened(place.state) as other:
        tokens = UserTokens(other)
        first, second = await tokens.create("ann"), await tokens.create("ann", timedelta(hours=1))
        third = await tokens.create("bob", timedelta(seconds=-1))
    callers = [authenticator.by_token(text) for text in (first, second, third, "fourth")]
    assert [caller.name if caller else None for caller in callers] == ["ann", "ann", None, None]
    assert callers[0] is not None
    assert callers[0].until is None
    assert callers[1] is not None
    assert callers[1].until is not None
    assert timedelta(minutes=59) < callers[1].until - datetime.now(UTC) <= timedelta(hours=1)
    kept = b"".join([await asyncio.to_thread(path.read_bytes) for path in place.state.glob(f"{DATABASE_FILE}*")])
    assert first.encode() not in kept
    assert len(place.store.list(USER_TOKENS)) == 3


async def test_wrong_tokens_read_no_records(place: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = Authenticator("longline", UserTokens(place.store))
    assert authenticator.by_token("wrong") is None
    statements: list[str] = []
    reader = place.store._database._reader
    assert reader is not None
    reader.set_trace_callback(statements.append)
    for count in range(100):
        assert authenticator.by_token(f"wrong {count}") is None
    assert set(statements) == {"PRAGMA data_version"}
