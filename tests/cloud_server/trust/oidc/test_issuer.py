"""When keys are fetched, by a clock that tests turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_server.trust.authenticator import LoginRefused
from cloud_server.trust.oidc.fetch import MAX_DOCUMENT_BYTES, FetchFailed, fetch_json
from cloud_server.trust.oidc.issuer import KEEP_S, REFRESH_S, UNKNOWN_KID_S, Issuer, issuer_keys
from tests.cloud_server.trust.oidc.test_verifier import ISSUER, KEY, OTHER, PEER, SETTINGS, claims
from tests.support.issuer import SigningKey, TestIssuer, running_issuer
from tunnel.aio.process.parts import PartFailed
from tunnel.aio.process.tasks import TaskOwner


class Web:
    """What the issuer's documents are now."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.fetched = 0
        self.down = ""

    async def __call__(self, url: str, _ca: Path | None) -> dict[str, Any]:
        if self.down:
            raise FetchFailed(self.down)
        if url.endswith("/openid-configuration"):
            return {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
        self.fetched += 1
        return {"keys": [key.jwk for key in self.keys]}


@asynccontextmanager
async def following(web: Web) -> AsyncIterator[Issuer]:
    issuer = Issuer(SETTINGS, web)
    tasks = TaskOwner("test")
    tasks.spawn("keys", issuer.run())
    try:
        yield issuer
    finally:
        await tasks.aclose()


def code_of(verify: Callable[[], object]) -> str:
    with pytest.raises(LoginRefused) as caught:
        verify()
    return caught.value.fault.code


@pytest.mark.looptime
async def test_an_unknown_key_is_fetched_at_once_and_then_seldom() -> None:
    web = Web(KEY)
    async with following(web) as issuer:
        await issuer.opened()
        assert issuer.verify(KEY.sign(claims()), PEER).name == "oidc:ann"
        web.keys = [OTHER]
        text = OTHER.sign(claims())
        await asyncio.gather(*(issuer.ready(text) for _ in range(20)))
        assert web.fetched == 2  # one for all of them
        assert issuer.verify(text, PEER).name == "oidc:ann"
        began_s = asyncio.get_running_loop().time()
        made_up = [OTHER.sign(claims(), kid=f"made up {number}") for number in range(50)]
        web.keys = [KEY]
        late = asyncio.gather(*map(issuer.ready, [*made_up, KEY.sign(claims())]))
        await asyncio.sleep(UNKNOWN_KID_S / 2)
        assert web.fetched == 2
        await late
        assert web.fetched == 3
        assert asyncio.get_running_loop().time() - began_s <= UNKNOWN_KID_S
        assert issuer.verify(KEY.sign(claims()), PEER).name == "oidc:ann"  # strangers do not keep it from being known
        await issuer.ready("no.token.at all")
        assert web.fetched == 3


@pytest.mark.looptime
async def test_keys_are_fetched_again_by_age_and_kept_for_a_day() -> None:
    web = Web(KEY)
    async with following(web) as issuer:
        await issuer.opened()
        await asyncio.sleep(REFRESH_S + 1)
        assert web.fetched == 2
        web.down = "no route"
        await asyncio.sleep(REFRESH_S + 1)
        assert "no route; those of" in issuer.away
        assert issuer.verify(KEY.sign(claims()), PEER).name == "oidc:ann"
        await asyncio.sleep(KEEP_S)
        assert code_of(lambda: issuer.verify(KEY.sign(claims()), PEER)) == "LL2061"
        web.down = ""
        await issuer.ready(KEY.sign(claims()))
        assert issuer.away == ""
        assert issuer.verify(KEY.sign(claims()), PEER).name == "oidc:ann"


@pytest.mark.looptime
async def test_without_keys_the_part_is_down() -> None:
    web = Web(KEY)
    web.down = "no route"
    async with following(web) as issuer:
        with pytest.raises(PartFailed, match="no route"):
            await issuer.opened()
        assert code_of(lambda: issuer.verify(KEY.sign(claims()), PEER)) == "LL2061"
        web.down = ""
        await issuer.opened()
        assert issuer.verify(KEY.sign(claims()), PEER).name == "oidc:ann"


async def test_documents_that_cannot_be_used() -> None:
    def web(**documents: Any) -> Callable[[str, Path | None], Any]:
        async def fetch(url: str, _ca: Path | None) -> dict[str, Any]:
            if not url.startswith(ISSUER):
                return await fetch_json(url, None)
            return dict(documents["keys" if url.endswith("/keys") else "about"])

        return fetch

    about = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
    for documents, says in (
        ({"about": {**about, "issuer": ISSUER + "/"}}, "must be that"),
        ({"about": {"issuer": ISSUER}}, "no jwks_uri"),
        ({"about": {**about, "jwks_uri": "https://a.example:99999999/"}}, "cannot be had"),
        ({"about": {**about, "jwks_uri": "https://a.example/\r\nx: y"}}, "no https"),
        ({"about": about, "keys": {}}, "no list of keys"),
        ({"about": about, "keys": {"keys": []}}, "no key for RS256"),
        (
            {"about": about, "keys": {"keys": [{"kty": "RSA", "n": "?", "e": 7}, 5, {"kty": "oct", "k": "eA"}]}},
            "no key",
        ),
        ({"about": about, "keys": {"keys": [KEY.jwk] * 33}}, "more than 32"),
    ):
        with pytest.raises(FetchFailed, match=says):
            await issuer_keys(SETTINGS, web(**documents))


@pytest.fixture
def running(tmp_path: Path) -> Any:
    with running_issuer(tmp_path) as made:
        yield made


async def test_over_tls(running: TestIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{running.url}/keys"
    assert "keys" in await fetch_json(url, running.ca_file)
    with pytest.raises(FetchFailed, match="certificate"):
        await fetch_json(url, None)
    with pytest.raises(FetchFailed, match="https"):
        await fetch_json(url.replace("https", "http"), None)
    with pytest.raises(FetchFailed, match="ca_file"):
        await fetch_json(url, tmp_path / "missing")
    with pytest.raises(FetchFailed, match="status 404"):
        await fetch_json(f"{running.url}/nothing", running.ca_file)
    with pytest.raises(FetchFailed, match="cannot be had"):
        await fetch_json("https://127.0.0.1:1/keys", running.ca_file)
    monkeypatch.setattr(TestIssuer, "get", lambda *_: (200, {"keys": "x" * MAX_DOCUMENT_BYTES}))
    with pytest.raises(FetchFailed, match="longer than"):
        await fetch_json(url, running.ca_file)
    running.down = True
    monkeypatch.setattr("cloud_server.trust.oidc.fetch.FETCH_S", 0.2)
    with pytest.raises(FetchFailed):
        await fetch_json(url, running.ca_file)
