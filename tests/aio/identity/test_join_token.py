"""Join tokens as text: one line that survives copying, and errors that repeat nothing of it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pki import Authority
from tunnel.aio.identity.join_token import PREFIX, JoinToken, TokenUnusable

CA = Authority().pem
TOKEN = JoinToken(
    agent="box-7",
    expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
    ca_pem=CA,
    certificate_pem=b"the certificate",
    key_pem=b"s3cret",
)
GOOD = {"agent": "a", "expires": 1, "ca": CA.decode(), "certificate": "", "key": ""}


def encoded(values: object) -> str:
    return PREFIX + base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def test_it_is_one_line_and_comes_back_as_it_was() -> None:
    text = TOKEN.encode()
    assert text.isascii()
    assert not set(text) & set(" \n\"'$`\\+/=")
    assert JoinToken.decode(text) == TOKEN
    assert JoinToken.decode(f"\r\n  {text}\r\n") == TOKEN


@pytest.mark.parametrize("label", ["X509 CERTIFICATE", "TRUSTED CERTIFICATE"])
def test_only_authorities_that_can_be_looked_at_are_taken_out_of_it(label: str) -> None:
    hidden = Authority("EVIL").pem.decode().replace("CERTIFICATE", label)
    assert JoinToken.decode(encoded({**GOOD, "ca": CA.decode() + hidden})).ca_pem == CA
    with pytest.raises(TokenUnusable, match="is damaged"):
        JoinToken.decode(encoded({**GOOD, "ca": hidden}))


def test_the_key_does_not_show() -> None:
    assert "s3cret" not in repr(TOKEN)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        "x",
        *({name: value for name, value in GOOD.items() if name != left} for left in GOOD),
        {**GOOD, "ca": ""},
        *({**GOOD, name: None} for name in ("expires", "ca", "key")),
        *({**GOOD, "expires": value} for value in ("x", 1e300, -(10**30), 10**17, 10**30)),
    ],
)
def test_a_damaged_token(values: object) -> None:
    with pytest.raises(TokenUnusable, match="is damaged"):
        JoinToken.decode(encoded(values))


def test_a_token_that_was_cut() -> None:
    text = TOKEN.encode()
    for length in range(len(PREFIX), len(text) - 1):
        with pytest.raises(TokenUnusable, match="is damaged"):
            JoinToken.decode(text[:length])


@pytest.mark.parametrize("text", ["", "\n", "longline-join-2.AAAA", "rubbish"])
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(TokenUnusable, match="cloud-server token create"):
        JoinToken.decode(text)


@given(st.text(max_size=200))
def test_no_error_repeats_what_it_was_given(text: str) -> None:
    for given_text in (text, PREFIX + text):
        with pytest.raises(TokenUnusable) as caught:
            JoinToken.decode(given_text)
        assert str(caught.value) in (
            "this is no join token; make one with: cloud-server token create",
            "the join token is damaged: was all of its line copied?",
        )
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("inside", [b"[" * 5000, b'{"agent":' * 5000, b'{"expires": ' + b"9" * 5000 + b"}"])
def test_what_is_nested_or_long_is_damaged(inside: bytes) -> None:
    with pytest.raises(TokenUnusable, match="damaged"):
        JoinToken.decode(PREFIX + base64.urlsafe_b64encode(inside).decode())
