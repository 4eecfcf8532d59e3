"""`kubectl --as=bob` was answered as the user's own self: whatever narrows a request is obeyed or refused.

Nobody here may act as somebody else; who may is in tests of the fleet API's rights.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from cloud_server.opens.policy import DoorPolicy
from tests.compat.fleets import RealFleet, compat_fleet
from tests.support.fleet import TOKEN, Fleet
from tests.support.fleet_client import ask
from tests.support.kubectl import kubectl
from tests.support.policies import rights_of
from tests.support.tunnel import wait_until

NODES = "/api/v1/nodes"
UPGRADE = {
    "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}  # fmt: skip
EXEC = "/api/v1/namespaces/default/pods/box-7/exec?command=true&stdout=1"


ALL_BUT_IMPERSONATE = """
[[role]]
name = "all-but-impersonate"
[[role.allow]]
verbs = ["get", "logs", "exec", "cp", "port-forward", "observe", "administer"]
[[binding]]
role = "all-but-impersonate"
users = ["ann", "robot", "carl"]
"""
POLICY = DoorPolicy(rights_of(ALL_BUT_IMPERSONATE))


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with compat_fleet(tmp_path, POLICY) as running:
        yield running


async def test_nobody_acts_as_somebody_else(fleet: Fleet) -> None:
    for header, kind in {
        "Impersonate-User": "users",
        "Impersonate-Group": "groups",
        "Impersonate-Uid": "uids",
        "Impersonate-Extra-Scopes": "userextras",
    }.items():
        for path in (NODES, "/apis/apps/v1", EXEC, "/apis/metrics.k8s.io/v1beta1/nodes"):
            code, body = await ask(fleet, path, headers={header: "bob"})
            assert (code, body["reason"]) == (403, "Forbidden"), path
            assert (body["details"]["name"], body["details"]["kind"]) == ("bob", kind)
            assert f'User "ann" cannot impersonate resource "{kind}"' in body["message"]
    code, _ = await ask(fleet, NODES, headers={"Impersonate-User": ""})
    assert code == 200


async def test_kubectl_as_somebody_else_is_refused(fleet: Fleet) -> None:
    ran = await kubectl(fleet.kubeconfig, "get", "nodes", "--as=bob")
    assert ran.code == 1
    assert "(Forbidden)" in ran.err
    assert 'cannot impersonate resource "users"' in ran.err


async def test_a_strangers_impersonation_says_nothing_but_that_it_is_a_stranger(fleet: Fleet) -> None:
    code, body = await ask(fleet, NODES, headers={"Impersonate-User": "ann"}, certificate=False)
    assert (code, body["reason"]) == (401, "Unauthorized")


async def _whoami(fleet: Fleet, *, certificate: bool, **headers: str) -> str:
    body = json.dumps({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"})
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    code, review = await ask(fleet, path, method="POST", headers=headers, body=body, certificate=certificate)
    return review["status"]["userInfo"]["username"] if code == 201 else str(code)


async def test_a_certificate_wins_over_a_token_as_in_a_real_api_server(fleet: Fleet) -> None:
    assert await _whoami(fleet, certificate=True, authorization=f"Bearer {TOKEN}") == "ann"
    assert await _whoami(fleet, certificate=True, authorization="Bearer guessed") == "ann"
    assert await _whoami(fleet, certificate=False, authorization=f"Bearer {TOKEN}") == "robot"
    assert await _whoami(fleet, certificate=False, authorization="Bearer guessed") == "401"


async def test_what_a_list_or_watch_is_narrowed_to_is_kept_or_refused(fleet: Fleet) -> None:
    async def names(query: str) -> list[str]:
        code, body = await ask(fleet, f"{NODES}?{query}")
        assert code == 200, body
        return [item["metadata"]["name"] for item in body["items"]]

    assert await names("limit=1") == ["box-7"]
    assert await names("fieldSelector=metadata.name%3Dbox-8") == ["box-8"]
    assert await names("labelSelector=longline/site%3Dsouth") == ["box-8"]
    _, whole = await ask(fleet, NODES)
    version = int(whole["metadata"]["resourceVersion"])
    assert len(await names(f"resourceVersion={version}&resourceVersionMatch=Exact")) == 3
    assert len(await names(f"resourceVersion={version - 1}&resourceVersionMatch=NotOlderThan")) == 3
    for query, code in {
        f"resourceVersion={version - 1}&resourceVersionMatch=Exact": 410,
        f"resourceVersion={version + 1000}": 504,
        "resourceVersion=-1": 400,
        "resourceVersionMatch=Exact": 422,
        "timeoutSeconds=x": 400,
    }.items():
        refused, body = await ask(fleet, f"{NODES}?{query}")
        assert (query, refused, body["kind"]) == (query, code, "Status")
    code, body = await ask(fleet, f"{NODES}/box-7?resourceVersion={version + 1000}")
    assert (code, body["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


async def test_a_watch_without_initial_events_has_none(fleet: Fleet) -> None:
    narrowed = "watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&timeoutSeconds=1"
    assert await ask(fleet, f"{NODES}?{narrowed}") == (200, "")


async def test_a_page_of_another_site_cannot_use_a_browsers_certificate(fleet: Fleet) -> None:
    own = f"https://127.0.0.1:{fleet.port}"
    for origin, code in {"https://evil.example": 403, "null": 403, f"{own}.evil.example": 403}.items():
        refused, body = await ask(fleet, EXEC, headers={**UPGRADE, "origin": origin})
        assert (origin, refused, body["kind"]) == (origin, code, "Status")
    for headers in ({"origin": own}, {}):
        code, body = await ask(fleet, EXEC, headers={**UPGRADE, **headers})
        assert (code, body["reason"]) == (400, "BadRequest")  # past the door: it only offers no protocol
    # A token is known to whoever sends it, and no browser adds it by itself.
    marked = "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
    headers = {**UPGRADE, "origin": "https://dashboard.example", "sec-websocket-protocol": f"x, {marked}"}
    code, body = await ask(fleet, EXEC, headers=headers, certificate=False)
    assert (code, body["reason"]) == (400, "BadRequest")


async def test_a_token_among_protocols_counts_for_websockets_alone(fleet: Fleet) -> None:
    def marked(token: str) -> str:
        return "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")

    for protocols in (marked("guessed") + ", x", marked(TOKEN), f"{marked(TOKEN)}, {marked(TOKEN)}, x", "x"):
        headers = {**UPGRADE, "sec-websocket-protocol": protocols}
        code, _ = await ask(fleet, EXEC, headers=headers, certificate=False)
        assert (protocols, code) == (protocols, 401)
    code, _ = await ask(fleet, NODES, headers={"sec-websocket-protocol": f"{marked(TOKEN)}, x"}, certificate=False)
    assert code == 401


@pytest.mark.e2e
def test_a_kubeconfig_that_says_as_is_refused_in_every_verb(boxes: RealFleet, tmp_path: Path) -> None:
    with boxes.cluster.policy.open("a") as policy:
        policy.write(ALL_BUT_IMPERSONATE)
    config = yaml.safe_load(boxes.cluster.kubeconfig("carl").read_text())
    config["users"][0]["user"]["as"] = "bob"
    written = tmp_path / "as.kubeconfig"
    written.write_text(yaml.safe_dump(config))
    carl = ("--kubeconfig", str(boxes.cluster.folder / "carl.kubeconfig"))
    wait_until(lambda: boxes.run_kubectl(*carl, "get", "nodes").returncode == 0, "the policy has carl")
    for words in (
        "get nodes", "get pods -w", "exec box-7 -- true", "logs box-7 -c app.log", "auth can-i get nodes",
        "auth whoami", "top nodes", "cp box-7:/etc/hostname x", "port-forward box-7 18080:80",
    ):  # fmt: skip
        ran = boxes.run_kubectl("--kubeconfig", str(written), *words.split())
        assert ran.returncode, words
        # `whoami` has words of its own for any refusal.
        assert b"impersonate" in ran.stderr or b"do not have permission" in ran.stderr, (words, ran.stderr)
