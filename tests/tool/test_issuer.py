"""What the command takes of an issuer, and what it does not."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.support.issuer import CLIENT, TestIssuer, running_issuer
from tunnel.tool.issuer import Client, Issuer, LoginRefused, Proof
from tunnel.tool.loopback import Loopback


@pytest.fixture
def running(tmp_path: Path) -> Iterator[TestIssuer]:
    with running_issuer(tmp_path) as made:
        yield made


def client(running: TestIssuer, **changes: Any) -> Client:
    trusted = running.authority.pem.decode()
    return Client(
        **{"issuer": running.url, "client_id": CLIENT, "scopes": ("openid",), "issuer_ca": trusted, **changes}
    )


def authorized(running: TestIssuer, url: str) -> str:
    """The code that a browser would come back with."""
    parts = urlsplit(url)
    _, there = running.get(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})
    assert isinstance(there, str)
    return parse_qs(urlsplit(there).query)["code"][0]


def test_a_code_is_good_with_its_proof_only(running: TestIssuer) -> None:
    issuer, proof = Issuer(client(running)), Proof()
    code = authorized(running, issuer.authorization_url("http://127.0.0.1:1/callback", proof))
    with pytest.raises(LoginRefused, match="invalid_grant"):
        issuer.redeem(code, "http://127.0.0.1:1/callback", Proof())  # stolen, without the verifier
    code = authorized(running, issuer.authorization_url("http://127.0.0.1:1/callback", proof))
    assert issuer.redeem(code, "http://127.0.0.1:1/callback", proof).claims["sub"] == "ann"


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"nonce": "another"}, "another login"),
        ({"iss": "https://evil.example.com"}, "somebody else"),
        ({"aud": "another"}, "somebody else"),
        ({"exp": 1_000_000_000}, "over already"),
        ({"exp": None}, "over already"),
    ],
)
def test_tokens_that_are_not_for_this_login(
    running: TestIssuer, monkeypatch: pytest.MonkeyPatch, claims: dict[str, Any], says: str
) -> None:
    issuer, proof = Issuer(client(running)), Proof()
    code = authorized(running, issuer.authorization_url("http://127.0.0.1:1/callback", proof))
    made = running.token
    monkeypatch.setattr(running, "token", lambda **given: made(**{**given, **claims}))
    with pytest.raises(LoginRefused, match=says):
        issuer.redeem(code, "http://127.0.0.1:1/callback", proof)


def test_issuers_that_are_none(running: TestIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoginRefused, match="cannot be reached"):
        Issuer(client(running, issuer_ca=""))
    with pytest.raises(LoginRefused, match="says that it is"):
        Issuer(client(running, issuer=running.url + "/"))
    with pytest.raises(LoginRefused, match="no https"):
        Issuer(client(running, issuer="http://127.0.0.1"))
    with pytest.raises(LoginRefused, match="cannot be used"):
        Issuer(client(running, issuer_ca="no certificate"))
    monkeypatch.setattr(running, "get", lambda *_: (302, "https://evil.example.com"))
    with pytest.raises(LoginRefused, match="302"):
        Issuer(client(running))


def test_only_the_browser_of_this_login_is_listened_to() -> None:
    with Loopback(0, "state") as loopback:
        came: list[str] = []
        waiting = threading.Thread(target=lambda: came.append(loopback.code("https://id.example.com")))
        waiting.start()
        for query in ({"code": "evil"}, {"code": "evil", "state": "guessed"}):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{loopback.redirect}?{urlencode(query)}", timeout=5)
            caught.value.close()
        urllib.request.urlopen(f"{loopback.redirect}?code=good&state=state", timeout=5).close()
        waiting.join(5)
    assert came == ["good"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"error": "access_denied", "error_description": "said no\x1b[2J"}, "said no"),
        ({"code": "x", "iss": "https://evil.example.com"}, "another issuer"),
    ],
)
def test_a_browser_that_comes_back_without_a_login(query: dict[str, str], says: str) -> None:
    def browse() -> None:
        try:
            urllib.request.urlopen(f"{loopback.redirect}?{urlencode({**query, 'state': 's'})}", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()

    with Loopback(0, "s") as loopback:
        browsing = threading.Thread(target=browse)
        browsing.start()
        with pytest.raises(LoginRefused, match=says) as caught:
            loopback.code("https://id.example.com")
        browsing.join(5)
    assert "\x1b" not in caught.value.text
