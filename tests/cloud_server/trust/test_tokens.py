"""Join tokens: as often as they are for, in time, and never two boxes with one name."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cloud_server.trust.database import DATABASE_FILE
from cloud_server.trust.records import JOIN_TOKENS, JoinTokenRecord
from cloud_server.trust.store import Change, Conflict, Store
from cloud_server.trust.tokens import GRACE, JoinTokens, TokenRefused
from tests.support.enrolling import Issuer, Office, office
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
    await store.commit(tokens.use(token, token.value.agent))
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


async def test_a_token_for_several_boxes_counts_them(place: Office) -> None:
    made = await place.tokens.create(Issuer(place.authority), "lyon-*", count=2, labels={"site": "lyon"}, by="ann")
    token_id = id_of(made)
    assert made.agent == "lyon-*"
    for name in ("lyon-1", "lyon-2"):
        token = place.tokens.look(token_id)
        assert place.tokens.name_by(token, name) == name
        for bad in ("", "paris-1", "lyon-", "lyon-A", "lyon-*"):
            with pytest.raises(TokenRefused) as refused:
                place.tokens.name_by(token, bad)
            assert refused.value.fault.code == "LL2046"
        await place.store.commit(place.tokens.use(token, name))
    assert "was used already" in await refusal(place.store, token_id)
    one = place.tokens.look(id_of(await place.token("box-7")))
    assert place.tokens.name_by(one, "") == place.tokens.name_by(one, "box-7") == "box-7"
    with pytest.raises(TokenRefused, match="is for box-7, not for box-8"):
        place.tokens.name_by(one, "box-8")


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
