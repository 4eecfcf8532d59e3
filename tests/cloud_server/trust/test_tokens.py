"""Join tokens: once, in time, and never two boxes with one."""

from __future__ import annotations

import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cloud_server.trust.tokens import TokenRefused, TokenStore
from tests.support.enrolling import Office, office
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.peer_identity import identify_certificate


@pytest.fixture
def place(tmp_path: Path) -> Office:
    return office(tmp_path)


def id_of(token: JoinToken) -> str:
    return identify_certificate(ssl.PEM_cert_to_DER_cert(token.certificate_pem.decode()), "longline").name


def refusal(tokens: TokenStore, token_id: str) -> str:
    with pytest.raises(TokenRefused) as caught:
        tokens.use(token_id)
    return str(caught.value)


def test_a_token_works_once(place: Office) -> None:
    token = place.token("box-7")
    assert place.tokens.use(id_of(token)) == "box-7"
    assert "was used already" in refusal(place.tokens, id_of(token))
    assert "was used already" in refusal(TokenStore(place.state), id_of(token))


def test_a_token_made_by_a_command_works_beside_a_running_server(place: Office) -> None:
    running = TokenStore(place.state)
    assert running.use(id_of(place.token("box-8"))) == "box-8"


def test_of_many_that_try_at_once_one_succeeds(place: Office) -> None:
    token_id = id_of(place.token())
    with ThreadPoolExecutor(16) as pool:
        used = list(pool.map(lambda _: used_or_not(place.tokens, token_id), range(64)))
    assert sum(used) == 1


def used_or_not(tokens: TokenStore, token_id: str) -> bool:
    try:
        tokens.use(token_id)
    except TokenRefused:
        return False
    return True


def test_a_token_expires_and_stays_expired(place: Office) -> None:
    token = place.token(life=timedelta(seconds=-1))
    for _ in range(2):
        assert "expired at" in refusal(place.tokens, id_of(token))


def test_the_certificate_inside_outlives_the_token_so_that_the_box_is_told_why(place: Office) -> None:
    token = place.token(life=timedelta(hours=1))
    certificate = x509.load_pem_x509_certificate(token.certificate_pem)
    assert certificate.not_valid_after_utc > token.expires + timedelta(days=1)
    assert abs(token.expires - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)


@pytest.mark.parametrize("token_id", ["", "0123", "../ca", "..", "a/b", "used", "\0"])
def test_a_token_that_nobody_made(place: Office, token_id: str) -> None:
    place.token()
    assert "is not known here" in refusal(place.tokens, token_id)


def test_the_server_keeps_nothing_that_could_be_used_as_a_token(place: Office) -> None:
    token = place.token()
    (kept,) = (place.state / "tokens").glob("*.json")
    assert b"KEY" not in kept.read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE((place.state / "tokens").stat().st_mode) == 0o700
    assert token.ca_pem == place.authority.pem
