"""Who somebody is, by each way of proving it, and why what was shown is worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cloud_server.trust.authenticator import Authenticator, Identified, LoginRefused, token_digest
from cloud_server.trust.caller import UNLIMITED, Caller, Scope
from cloud_server.trust.records import BEARER, LOGIN, UserCertificate, UserRecord, UserToken
from tunnel.aio.sockets.conn import NO_CERTIFICATE, TlsPeer
from tunnel.core.wire.principal import Principal, PrincipalKind

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
SITE = Scope(agents=frozenset({"box-7"}))
ANN = "spiffe://longline/user/ann"


class Kept:
    """What was handed out."""

    recorded = True

    def __init__(self) -> None:
        self.users = {name: UserRecord(name=name, created=NOW - DAY, valid_from=NOW - DAY) for name in ("ann", "bob")}
        self.users["bob"] = replace(self.users["bob"], groups=("ops", "paris"))
        self.tokens: dict[str, UserToken] = {}
        self.certificates: dict[str, UserCertificate] = {}
        self.shown: list[str] = []

    def user(self, name: str) -> UserRecord | None:
        return self.users.get(name)

    def catch_up(self) -> None:
        """Nobody else changes them."""

    def user_token(self, sha256: str) -> UserToken | None:
        return self.tokens.get(sha256)

    def user_certificate(self, serial: str) -> UserCertificate | None:
        return self.certificates.get(serial)

    def used(self, key: str) -> None:
        self.shown.append(key)

    def token(
        self, text: str, user: str, expires: datetime | None = None, scope: Scope = UNLIMITED, purpose: str = BEARER
    ) -> None:
        digest = token_digest(text)
        self.tokens[digest] = UserToken(
            user=user, sha256=digest, created=NOW, expires=expires, scope=scope, purpose=purpose
        )

    def certificate(self, serial: str, user: str, login: str = "") -> None:
        self.certificates[serial] = UserCertificate(
            serial=serial, user=user, created=NOW, expires=NOW + DAY, login=login
        )


@pytest.fixture
def kept() -> Kept:
    made = Kept()
    made.token("for ever", "ann")
    made.token("later", "bob", NOW + timedelta(hours=1), SITE)
    made.token("over", "bob", NOW - timedelta(seconds=1))
    made.token("login", "ann", NOW + DAY, purpose=LOGIN)
    made.certificate("5f3a", "ann", token_digest("login"))
    made.certificate("b0b", "bob")
    return made


@pytest.fixture
def authenticator(kept: Kept) -> Authenticator:
    return Authenticator("longline", kept)


def refusal(ask: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(LoginRefused) as caught:
        ask()
    return caught.value.fault.code, caught.value.text


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        (ANN, "ann"),
        ("spiffe://longline/user/", None),
        ("spiffe://longline/user/a/b", None),
        ("spiffe://elsewhere/user/ann", None),
        ("spiffe://longline/agent/box-7", None),
        ("spiffe://longline/join/0123", None),
        ("spiffe://longline/recover/box-7", None),
        ("spiffe://longline/server", None),
        ("", None),
        (None, None),
    ],
)
def test_a_certificate_stands_for_its_user_and_nobody_else(
    authenticator: Authenticator, uri: str | None, name: str | None
) -> None:
    until = NOW + DAY
    caller = authenticator.by_certificate(uri, "5F3A", until)
    if name is None:
        assert caller is None
    else:
        principal = Principal(kind=PrincipalKind.USER, name=name, proof="certificate:5f3a")
        assert caller == Caller(principal, until, UNLIMITED)


def test_a_certificate_is_worth_nothing_without_its_record(kept: Kept, authenticator: Authenticator) -> None:
    assert refusal(lambda: authenticator.by_certificate(ANN, "77"))[0] == "LL2040"
    assert refusal(lambda: authenticator.by_certificate(ANN, ""))[0] == "LL2040"
    assert refusal(lambda: authenticator.by_certificate(ANN, "b0b"))[0] == "LL2040"  # bob's
    zeros = authenticator.by_certificate(ANN, "005F3A")
    assert zeros is not None
    del kept.tokens[token_digest("login")]
    assert refusal(lambda: authenticator.by_certificate(ANN, "5f3a"))[0] == "LL2040"  # its login was revoked


def test_of_an_authority_of_ones_own_no_record_is_needed(kept: Kept, authenticator: Authenticator) -> None:
    kept.recorded = False
    eve = authenticator.by_certificate("spiffe://longline/user/eve", "1")
    assert eve is not None
    assert eve.principal.groups == ()
    kept.users["eve"] = UserRecord(name="eve", created=NOW, valid_from=NOW, groups=("ops",))
    again = authenticator.by_certificate("spiffe://longline/user/eve", "1", since=NOW)
    assert again is not None
    assert again.principal.groups == ("ops",)
    old = refusal(lambda: authenticator.by_certificate("spiffe://longline/user/eve", "1", since=NOW - DAY))
    assert old[0] == "LL2042"
    kept.users["eve"] = replace(kept.users["eve"], revoked=NOW)
    assert refusal(lambda: authenticator.by_certificate("spiffe://longline/user/eve", "1"))[0] == "LL2041"


def test_a_token_stands_for_its_user_until_it_ends(kept: Kept, authenticator: Authenticator) -> None:
    digest = token_digest("later")
    principal = Principal(kind=PrincipalKind.USER, name="bob", groups=("ops", "paris"), proof=f"token:{digest[:12]}")
    assert authenticator.by_token("later") == Caller(principal, NOW + timedelta(hours=1), SITE)
    for_ever = authenticator.by_token("for ever")
    assert for_ever is not None
    assert (for_ever.name, for_ever.until, for_ever.scope) == ("ann", None, UNLIMITED)
    assert kept.shown == [digest, token_digest("for ever")]
    assert [authenticator.by_token(text) for text in ("", None)] == [None, None]
    assert refusal(lambda: authenticator.by_token("over"))[0] == "LL2043"
    assert refusal(lambda: authenticator.by_token("unknown"))[0] == "LL2040"
    assert refusal(lambda: authenticator.by_token("\udcff"))[0] == "LL2040"
    assert len(kept.shown) == 2


def test_somebody_who_is_acted_as_has_the_limits_of_whoever_acts(kept: Kept, authenticator: Authenticator) -> None:
    real = Caller(
        Principal(kind=PrincipalKind.USER, name="ann", proof="certificate:5f3a"), NOW, Scope(verbs=frozenset({"get"}))
    )
    acting = authenticator.acted_as(real, "bob", ("ops",))
    assert (acting.until, acting.scope, acting.by) == (NOW, real.scope, real.principal)
    assert acting.principal == Principal(
        kind=PrincipalKind.USER, name="bob", groups=("ops",), proof="user:ann certificate:5f3a"
    )
    kept.users["bob"] = replace(kept.users["bob"], revoked=NOW)
    assert refusal(lambda: authenticator.acted_as(real, "bob", ()))[0] == "LL2041"


def test_each_reason_for_which_a_user_is_nobody_has_its_code(kept: Kept, authenticator: Authenticator) -> None:
    kept.users["bob"] = replace(kept.users["bob"], revoked=NOW, reason="left")
    for ask in (
        lambda: authenticator.by_token("later"),
        lambda: authenticator.by_certificate("spiffe://longline/user/bob", "b0b"),
    ):
        code, text = refusal(ask)
        assert (code, "left" in text) == ("LL2041", True)
    kept.users["bob"] = replace(kept.users["bob"], revoked=None, valid_from=NOW + timedelta(seconds=1))
    assert refusal(lambda: authenticator.by_token("later"))[0] == "LL2042"
    assert refusal(lambda: authenticator.by_certificate("spiffe://longline/user/bob", "b0b"))[0] == "LL2042"
    del kept.users["bob"]
    assert refusal(lambda: authenticator.by_token("later"))[0] == "LL2040"
    ended = lambda: authenticator.by_certificate(ANN, "5f3a", NOW)  # noqa: E731 - of a connection that goes on
    assert refusal(ended)[0] == "LL2043"


def test_a_login_is_good_for_certificates_and_nothing_else(kept: Kept, authenticator: Authenticator) -> None:
    assert refusal(lambda: authenticator.by_token("login"))[0] == "LL2045"
    login = authenticator.by_login("login")
    assert login is not None
    assert (login.caller.name, login.token.sha256) == ("ann", token_digest("login"))
    assert [authenticator.by_login(text) for text in ("later", "unknown", "", None)] == [None] * 4
    kept.users["ann"] = replace(kept.users["ann"], revoked=NOW)
    assert refusal(lambda: authenticator.by_login("login"))[0] == "LL2041"


def test_a_token_also_stands_for_one_whose_certificate_is_worth_nothing(authenticator: Authenticator) -> None:
    good, bad = TlsPeer(ANN, "5f3a", NOW + DAY, NOW), TlsPeer(ANN, "77", NOW + DAY, NOW)
    assert authenticator.by_either(good, "later").name == "ann"
    assert authenticator.by_either(bad, "later").name == "bob"
    assert refusal(lambda: authenticator.by_either(bad, None))[0] == "LL2040"
    assert refusal(lambda: authenticator.by_either(NO_CERTIFICATE, None))[0] == "LL2023"
    assert [authenticator.is_user(peer) for peer in (good, bad, NO_CERTIFICATE)] == [True, False, False]


def test_a_unix_peer_is_the_api_server_by_its_protocol_only(authenticator: Authenticator) -> None:
    server = authenticator.by_unix_peer(0, 42, konnectivity=True)
    assert (str(server), server.principal.proof) == ("kube_apiserver:kube-apiserver", "uid:0 pid:42")
    process = authenticator.by_unix_peer(1000, 0, konnectivity=False)
    assert (str(process), process.principal.proof) == ("local_process:uid:1000", "uid:1000")


def test_a_forward_and_a_box_are_named_as_what_they_are(authenticator: Authenticator) -> None:
    assert str(authenticator.static_forward("127.0.0.1:2222")) == "static_forward:127.0.0.1:2222"
    box = authenticator.agent("box-7", "0A")
    assert (str(box), box.principal.proof) == ("agent:box-7", "certificate:0a")
    assert authenticator.agent("box-7", "").principal.proof == ""


class Tokens:
    """An issuer with one token."""

    def __init__(self, shown: Identified) -> None:
        self.shown = shown
        self.asked: list[str] = []
        self.address = ""
        """That it is to be asked with."""

    def verify(self, text: str, address: str) -> Identified:
        assert (text, address) == ("a.b.c", self.address)
        return self.shown

    async def ready(self, text: str) -> None:
        self.asked.append(text)


async def test_an_id_token_stands_for_whom_its_issuer_says(kept: Kept, authenticator: Authenticator) -> None:
    assert refusal(lambda: authenticator.by_token("a.b.c"))[0] == "LL2040"
    until = NOW + DAY
    authenticator.id_tokens = tokens = Tokens(Identified("oidc:ann", ("oidc:ops", "all"), "oidc:id:1", NOW, until))
    caller = authenticator.by_either(NO_CERTIFICATE, "a.b.c")
    principal = Principal(kind=PrincipalKind.USER, name="oidc:ann", groups=("oidc:ops", "all"), proof="oidc:id:1")
    assert caller == Caller(principal, until, UNLIMITED)
    assert authenticator.by_either(NO_CERTIFICATE, "later").name == "bob"  # a token of ours is one as before
    for peer, tokens.address in (("192.0.2.1:5050", "192.0.2.1"), ("[2001:db8::1]:5050", "2001:db8::1")):
        assert authenticator.by_either(NO_CERTIFICATE, "a.b.c", peer) == caller
    await authenticator.ready_for("a.b.c")
    await authenticator.ready_for("later")
    await authenticator.ready_for(None)
    assert tokens.asked == ["a.b.c"]


def test_a_user_of_ours_with_the_name_of_an_id_token(kept: Kept, authenticator: Authenticator) -> None:
    authenticator.id_tokens = Tokens(Identified("eve", ("oidc:ops",), "oidc:id:1", NOW, NOW + DAY))
    kept.users["eve"] = record = UserRecord(name="eve", created=NOW, valid_from=NOW, groups=("local",))
    caller = authenticator.by_token("a.b.c")
    assert caller is not None
    assert caller.principal.groups == ("local", "oidc:ops")
    kept.users["eve"] = replace(record, valid_from=NOW + timedelta(seconds=1))
    assert refusal(lambda: authenticator.by_token("a.b.c"))[0] == "LL2042"
    kept.users["eve"] = replace(record, revoked=NOW)
    assert refusal(lambda: authenticator.by_token("a.b.c"))[0] == "LL2041"


def test_what_stands_on_an_id_token_goes_by_what_is_known_now(kept: Kept, authenticator: Authenticator) -> None:
    authenticator.id_tokens = Tokens(Identified("eve", ("oidc:ops",), "oidc:id:1", NOW, NOW + DAY))
    kept.users["eve"] = record = UserRecord(name="eve", created=NOW, valid_from=NOW, groups=("local",))
    caller = authenticator.by_token("a.b.c")
    assert caller is not None
    assert authenticator.again(caller) is caller
    kept.users["eve"] = replace(record, groups=("other",))
    assert authenticator.again(caller).principal.groups == ("other", "oidc:ops")
    kept.users["eve"] = replace(record, groups=())  # a group that they have lost counts no more
    assert authenticator.again(caller).principal.groups == ("oidc:ops",)
    kept.users["eve"] = replace(record, revoked=NOW)
    assert refusal(lambda: authenticator.again(caller))[0] == "LL2041"
    kept.users["eve"] = replace(record, valid_from=NOW + timedelta(seconds=1))  # revoked, and taken in again
    assert refusal(lambda: authenticator.again(caller))[0] == "LL2042"
    del kept.users["eve"]
    assert authenticator.again(caller).principal.groups == ("oidc:ops",)
    authenticator.id_tokens = None
    assert refusal(lambda: authenticator.again(caller))[0] == "LL2040"
