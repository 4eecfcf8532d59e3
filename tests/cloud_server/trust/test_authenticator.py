"""Who somebody is, by each way of proving it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cloud_server.trust.authenticator import Authenticator, UserToken, token_digest
from cloud_server.trust.caller import UNLIMITED, Caller, Scope
from tunnel.core.wire.principal import Principal, PrincipalKind

NOW = datetime.now(UTC)
SITE = Scope(agents=frozenset({"box-7"}))


class Tokens:
    """What was handed out."""

    def __init__(self, *tokens: UserToken) -> None:
        self._tokens = {token.sha256: token for token in tokens}

    def user_token(self, sha256: str) -> UserToken | None:
        return self._tokens.get(sha256)


def token(text: str, user: str, expires: datetime | None = None, scope: Scope = UNLIMITED) -> UserToken:
    return UserToken(
        user=user, sha256=token_digest(text), created=NOW, expires=expires, groups=("ops",), scope=scope
    )  # fmt: skip


@pytest.fixture
def authenticator() -> Authenticator:
    later, before = NOW + timedelta(hours=1), NOW - timedelta(seconds=1)
    tokens = Tokens(token("for ever", "ann"), token("later", "bob", later, SITE), token("over", "eve", before))
    return Authenticator("longline", tokens)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("spiffe://longline/user/ann", "ann"),
        ("spiffe://longline/user/", None),
        ("spiffe://longline/user/a/b", None),
        ("spiffe://elsewhere/user/ann", None),
        ("spiffe://longline/agent/box-7", None),
        ("spiffe://longline/join/0123", None),
        ("spiffe://longline/server", None),
        ("", None),
        (None, None),
    ],
)
def test_a_certificate_stands_for_its_user_and_nobody_else(
    authenticator: Authenticator, uri: str | None, name: str | None
) -> None:
    caller = authenticator.by_certificate(uri, "5F3A", NOW)
    if name is None:
        assert caller is None
    else:
        principal = Principal(kind=PrincipalKind.USER, name=name, proof="certificate:5f3a")
        assert caller == Caller(principal, NOW, UNLIMITED)


def test_a_token_stands_for_its_user_until_it_ends(authenticator: Authenticator) -> None:
    digest = token_digest("later")
    principal = Principal(kind=PrincipalKind.USER, name="bob", groups=("ops",), proof=f"token:{digest[:12]}")
    assert authenticator.by_token("later") == Caller(principal, NOW + timedelta(hours=1), SITE)
    for_ever = authenticator.by_token("for ever")
    assert for_ever is not None
    assert (for_ever.name, for_ever.until, for_ever.scope) == ("ann", None, UNLIMITED)
    assert [authenticator.by_token(text) for text in ("over", "unknown", "\udcff", "", None)] == [None] * 5


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
