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


NO_ADDRESSES = (
    "http://id.example.com/login",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "--proxy-server=evil",
    "-https://id.example.com",
    " https://id.example.com",
    "ht\ntps://id.example.com",
    "https://id.example.com/\x1b[2J",
    "https://id.example.com/ --flag",
    "https://",
    "https://[",
)


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_a_browser_is_given_https_addresses_only(
    running: TestIssuer, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    issuer = Issuer(client(running))
    monkeypatch.setitem(issuer._endpoints, "authorization_endpoint", address)
    with pytest.raises(LoginRefused, match="is no https") as refused:
        issuer.authorization_url("http://127.0.0.1:1/callback", Proof())
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["verification_uri", "verification_uri_complete"])
def test_a_code_is_typed_in_at_https_addresses_only(
    running: TestIssuer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    issuer = Issuer(client(running))
    answer = {"verification_uri": "https://id.example.com/go", "user_code": "A", "device_code": "b"}
    monkeypatch.setattr(issuer, "_ask", lambda *_: {**answer, name: "http://evil.example.com"})
    shown: list[object] = []
    with pytest.raises(LoginRefused, match="is no https"):
        issuer.by_device(lambda *those: shown.append(those))
    assert shown == []


def test_an_address_with_a_query_keeps_it(running: TestIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer(client(running))
    monkeypatch.setitem(issuer._endpoints, "authorization_endpoint", "https://id.example.com/go?realm=ops")
    query = parse_qs(urlsplit(issuer.authorization_url("http://127.0.0.1:1/callback", Proof())).query)
    assert (query["realm"], query["response_type"]) == (["ops"], ["code"])


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
