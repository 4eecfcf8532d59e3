"""Tokens good and bad, by an issuer's keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloud_server.trust.authenticator import LoginRefused
from cloud_server.trust.oidc.keys import KeySet
from cloud_server.trust.oidc.settings import OidcSettings
from cloud_server.trust.oidc.verifier import FORGED_AT_ONCE, MAX_GROUPS, MAX_TOKEN_BYTES, Verifier
from tests.support.issuer import SigningKey

ISSUER = "https://id.example.com/realms/ops"
SETTINGS = OidcSettings(issuer=ISSUER, client_id="longline", audiences=("longline",))
PEER = "192.0.2.1"
KEY = SigningKey("one")
OTHER = SigningKey("two")


def verifier(settings: OidcSettings = SETTINGS, *keys: dict[str, Any]) -> Verifier:
    made = Verifier(settings)
    made.use(KeySet({"keys": list(keys) or [KEY.jwk, OTHER.jwk]}, settings.algorithms))
    return made


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())  # noqa: TID251 - tokens go by the wall clock
    whole = {"iss": ISSUER, "aud": "longline", "sub": "ann", "iat": now, "exp": now + 60, "jti": "j-1", **changes}
    return {name: value for name, value in whole.items() if value is not None}


def in_s(seconds: float) -> int:
    return int(time.time() + seconds)  # noqa: TID251 - as above


def raw(header: dict[str, Any], payload: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token that no library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    signature = base64.urlsafe_b64encode(sign(b".".join(parts))).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


def refusal(text: str, settings: OidcSettings = SETTINGS) -> tuple[str, str]:
    with pytest.raises(LoginRefused) as caught:
        verifier(settings).verify(text, PEER)
    return caught.value.fault.code, caught.value.text


def test_a_good_token_says_who_and_until_when() -> None:
    made = claims(groups=["ops", "system:masters", 7, "ops", "x" * 200])
    shown = verifier(replace(SETTINGS, groups_prefix="")).verify(KEY.sign(made), PEER)
    assert (shown.name, shown.groups) == ("oidc:ann", ("ops",))
    assert shown.proof == "oidc:id.example.com:j-1"
    assert int(shown.until.timestamp()) == made["exp"]
    assert int(shown.since.timestamp()) == made["iat"]


def test_without_a_kid_the_keys_of_the_algorithm_are_tried() -> None:
    assert verifier().verify(OTHER.sign(claims(), kid=None), PEER).name == "oidc:ann"


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"aud": "another"}, "LL2060", "Audience"),
        ({"aud": None}, "LL2060", "aud"),
        ({"aud": ["longline", "other"], "azp": "other"}, "LL2060", "made for 'other'"),
        ({"iss": "https://evil.example.com"}, "LL2060", "issuer"),
        ({"iss": ISSUER + "/"}, "LL2060", "issuer"),
        ({"exp": in_s(-1)}, "LL2043", "expired"),
        ({"exp": in_s(-1), "iat": in_s(-99)}, "LL2043", "expired"),
        ({"exp": None}, "LL2060", "exp"),
        ({"exp": 1e30}, "LL2060", "time"),
        ({"iat": None}, "LL2060", "iat"),
        ({"iat": in_s(86_400)}, "LL2060", "not yet valid"),
        ({"nbf": in_s(86_400)}, "LL2060", "not yet valid"),
        ({"sub": None}, "LL2060", "sub"),
        ({"sub": "a b"}, "LL2060", "cannot name a user"),
        ({"sub": "x" * 125}, "LL2060", "cannot name a user"),
        ({"groups": [str(n) for n in range(MAX_GROUPS + 1)]}, "LL2060", "fewer"),
    ],
)
def test_claims_that_are_not_good(changes: dict[str, Any], code: str, says: str) -> None:
    found, text = refusal(KEY.sign(claims(**changes)))
    assert found == code
    assert says.lower() in text.lower()


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk"])
def test_a_key_that_comes_with_the_token_is_not_looked_at(name: str) -> None:
    evil = SigningKey("one")
    text = evil.sign(claims(), **{name: evil.jwk if name == "jwk" else "https://evil.example.com/keys"})
    assert "key of its own" in refusal(text)[1]
    assert refusal(evil.sign(claims()))[0] == "LL2060"  # of the same name, and not the issuer's


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", ""])
def test_unsigned(algorithm: str) -> None:
    assert "signed with" in refusal(raw({"alg": algorithm, "kid": "one"}, claims(), lambda _: b""))[1]


@pytest.mark.parametrize("algorithm", ["HS256", "HS512"])
def test_a_mac_with_the_public_key(algorithm: str) -> None:
    public = KEY.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256 if algorithm == "HS256" else hashlib.sha512

    def forge(data: bytes) -> bytes:
        return hmac.new(public, data, digest).digest()

    assert "signed with" in refusal(raw({"alg": algorithm, "kid": "one"}, claims(), forge))[1]
    # Not even if somebody could configure it: no key of a JWKS is one for a MAC.
    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(public).decode(), "kid": "mac", "alg": algorithm}
    assert len(KeySet({"keys": [secret, KEY.jwk]}, (algorithm, "RS256"))) == 1


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "' or 1=1 --", "unknown", ["one"], {"a": 1}, 7, "x" * 300, "\0" + "0", ""]
)
def test_a_kid_is_a_name_and_nothing_else(kid: object) -> None:
    header = {"alg": "RS256", "kid": kid}
    assert refusal(raw(header, claims(), lambda _: b"x" * 256))[0] == "LL2060"


def test_an_algorithm_must_be_that_of_the_key() -> None:
    wide = replace(SETTINGS, algorithms=("RS256", "RS512", "ES256"))
    import jwt

    text = jwt.encode(claims(), KEY.private, algorithm="RS512", headers={"kid": "one"})
    assert refusal(text, wide)[0] == "LL2060"  # the JWKS has it for RS256
    unbound = {name: value for name, value in KEY.jwk.items() if name != "alg"}
    assert verifier(wide, unbound).verify(text, PEER).name == "oidc:ann"


def test_a_short_key_is_none() -> None:
    short = SigningKey("short", rsa.generate_private_key(public_exponent=65537, key_size=1024))
    with pytest.warns(UserWarning, match="below the minimum"):
        text = short.sign(claims())
    with pytest.raises(LoginRefused):
        verifier(SETTINGS, short.jwk).verify(text, PEER)


def test_other_kinds_of_tokens() -> None:
    assert "type 'at+jwt'" in refusal(KEY.sign(claims(), typ="at+jwt"))[1]
    assert refusal(raw({"alg": "RS256", "kid": "one", "crit": ["exp"]}, claims(), lambda _: b""))[0] == "LL2060"


@pytest.mark.parametrize("text", ["..", "a.b.c", "e30.e30.e30", "é.b.c", "x" * MAX_TOKEN_BYTES + ".a.b", "\udc80.."])
def test_what_is_no_token(text: str) -> None:
    assert refusal(text)[0] == "LL2060"


def test_a_head_that_is_nested_deeply() -> None:
    head = base64.urlsafe_b64encode(b"[" * 11_000).decode()
    assert refusal(f"{head}.e30.e30")[0] == "LL2060"


def test_a_changed_token() -> None:
    head, body, signature = KEY.sign(claims()).split(".")
    forged = base64.urlsafe_b64encode(json.dumps(claims(sub="admin")).encode()).rstrip(b"=").decode()
    assert refusal(f"{head}.{forged}.{signature}")[0] == "LL2060"
    assert refusal(f"{head}.{body}.")[0] == "LL2060"


def test_names_and_claims_are_as_configured() -> None:
    settings = replace(
        SETTINGS,
        username_claim="email",
        username_prefix="",
        groups_claim="roles",
        required_claims={"hd": "example.com"},
    )
    good = {"email": "ann@example.com", "email_verified": True, "hd": "example.com", "roles": "ops"}
    shown = verifier(settings).verify(KEY.sign(claims(**good)), PEER)
    assert (shown.name, shown.groups) == ("ann@example.com", ("oidc:ops",))
    assert "has verified" in refusal(KEY.sign(claims(**{**good, "email_verified": False})), settings)[1]
    assert "hd" in refusal(KEY.sign(claims(**{**good, "hd": "evil.com"})), settings)[1]
    assert "hd" in refusal(KEY.sign(claims(**{**good, "hd": None})), settings)[1]
    unsaid = KEY.sign(claims(**{**good, "email_verified": None}))
    assert "has verified" in refusal(unsaid, settings)[1]
    assert "has verified" in refusal(KEY.sign(claims(**{**good, "email_verified": "true"})), settings)[1]
    taken = replace(settings, unverified_email=True)
    assert verifier(taken).verify(unsaid, PEER).name == "ann@example.com"
    assert "email" in refusal(KEY.sign(claims(**{**good, "email": None})), settings)[1]
    assert "cannot name" in refusal(KEY.sign(claims(**{**good, "email": "system:admin"})), settings)[1]


def test_a_verified_token_is_known_until_its_end_or_its_keys() -> None:
    made = verifier()
    text = KEY.sign(claims())
    first = made.verify(text, PEER)
    assert made.verify(text, PEER) is first
    made.use(KeySet({"keys": [KEY.jwk, OTHER.jwk]}, SETTINGS.algorithms))  # the same
    assert made.verify(text, PEER) is first
    made._verified[next(iter(made._verified))] = first._replace(until=first.since - timedelta(seconds=1))
    with pytest.raises(LoginRefused, match="expired"):
        made.verify(text, PEER)
    made.verify(text, PEER)
    made.use(KeySet({"keys": [OTHER.jwk]}, SETTINGS.algorithms))
    with pytest.raises(LoginRefused, match="has no key 'one'"):
        made.verify(text, PEER)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_server.trust.oidc.verifier.MAX_VERIFIED", 2)
    made = verifier()
    for number in range(4):
        made.verify(KEY.sign(claims(jti=str(number))), PEER)
    assert len(made._verified) == 2


def test_wrong_signatures_are_looked_at_so_often_for_each_address(monkeypatch: pytest.MonkeyPatch) -> None:
    made, checks = verifier(), 0
    decoded = made._decoded

    def counted(*given: Any) -> Any:
        nonlocal checks
        checks += 1
        return decoded(*given)

    monkeypatch.setattr(made, "_decoded", counted)
    known, forged = KEY.sign(claims()), SigningKey("one").sign(claims())
    assert made.verify(known, PEER).name == "oidc:ann"
    refused = [why(lambda: made.verify(forged, PEER)) for _ in range(FORGED_AT_ONCE + 20)]
    assert "Signature verification failed" in refused[0]
    assert f"too many with wrong signatures came from {PEER}: wait" in refused[-1]
    assert FORGED_AT_ONCE < checks < FORGED_AT_ONCE + 15  # some more became free meanwhile
    new = KEY.sign(claims(jti="j-2"))
    assert "too many" in why(lambda: made.verify(new, PEER))
    assert made.verify(known, PEER).name == "oidc:ann"  # costs nothing
    assert made.verify(new, "192.0.2.2").name == "oidc:ann"


def test_good_signatures_are_no_forged_ones() -> None:
    made = verifier()
    for number in range(FORGED_AT_ONCE + 5):
        assert "Audience" in why(lambda number=number: made.verify(KEY.sign(claims(aud=f"a{number}")), PEER))  # type: ignore[misc]
    assert made.verify(OTHER.sign(claims(), kid=None), PEER).name == "oidc:ann"


def test_strangers_are_not_told_why_there_are_no_keys() -> None:
    text = why(lambda: Verifier(SETTINGS).verify(KEY.sign(claims()), PEER))
    assert text == "the issuer's keys are not known here; see the server's log"


def why(ask: Callable[[], object]) -> str:
    with pytest.raises(LoginRefused) as caught:
        ask()
    return caught.value.text
