"""Who may read what: while the API server is away, nobody sees more than it has shown them before."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.autonomy.serving import CERTIFICATE
from tests.edge_agent.autonomy.answering.test_callers import DNS, PROXY, token
from tests.edge_agent.autonomy.proxied import DAY, GROUP, NODE, Proxied, Said, proxied
from tests.support.pki import Authority
from tunnel.aio.identity.certificate import read_pem
from tunnel.core.wire.errors import StreamError

HUSH = b"hush-hush"
Headers = tuple[tuple[str, str], ...]

TARGETS = (
    "/api/v1/services", "/api/v1/services?resourceVersion=0", "/api/v1/namespaces/ns/services", "/api/v1/secrets",
    "/api/v1/namespaces/ns/secrets", "/api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Dpassword",
    "/api/v1/namespaces/ns/secrets/password", "/api/v1/namespaces/ns%2Fsecrets/password",
    "/api/v1/namespaces/ns/secrets%2Fpassword", "/api/v1/namespaces//secrets/password", "//api/v1/secrets",
    "/api//v1/secrets", "/api/v1//secrets", "/api/v1/secrets/", "/api/v1/secrets//", "/api/v1/./secrets",
    "/api/v1/services/../secrets", "/api/v1/services/..%2fsecrets", "/api/v1/services%2F..%2Fsecrets",
    "/api/v1/%73ecrets", "/api/v1/Secrets", "/API/v1/secrets", "/api/v1/secrets%00", "/api/v1/secrets;services",
    "/apis//v1/secrets", "/api/v1/watch/secrets", "/api/v1/watch/namespaces/ns/secrets/password",
    "/api/v1/services?resourceVersion=0&fieldSelector=metadata.name%3Dweb,",
    "/api/v1/services?labelSelector=", "/api/v1/services?labelSelector=a%3Db,", "/api/v1/services?labelSelector=a=b",
    "/api/v1/services?LabelSelector=a%3Db", "/api/v1/services?resourceVersion=0&resourceVersion=5",
    "/api/v1/services?labelselector=x;watch=1", "/api/v1/pods?resourceVersion=0",
    "/api/v1/nodes?fieldSelector=metadata.name%3Dn", "/api/v1/nodes/n", "/api/v1/nodes/n/proxy/",
    "/api/v1/namespaces/ns/pods/one/log", "/readyz", "/api", "/", "/openid/v1/jwks",
)  # fmt: skip
"""What is asked for, in the words that are meant and in others that may pass for them."""


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Proxied]:
    async with proxied(tmp_path) as made:
        kube = made.kube
        await kube.put("services", "web", "ns")
        await kube.put("pods", "one", "ns")
        await kube.put("nodes", "n")
        await kube.put("secrets", "password", "ns", data={"word": HUSH.decode()})
        kube.users = {token(PROXY): PROXY, token(DNS): DNS}
        kube.rights = {PROXY: {"services"}, DNS: {"pods"}}
        for path in ("/api/v1/pods?fieldSelector=spec.nodeName%3Dn", "/api/v1/nodes?fieldSelector=metadata.name%3Dn",
                     "/api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Dpassword",
                     "/api/v1/secrets", "/api/v1/services?resourceVersion=0"):  # fmt: skip
            said = await made.as_kubelet("GET", f"{path}&resourceVersion=0" if "?" in path else path)
            assert said.status == 200
        assert HUSH in (await made.as_kubelet("GET", "/api/v1/namespaces/ns/secrets/password")).body
        yield made


def bearer(text: str) -> tuple[str, str]:
    return "authorization", f"Bearer {text}"


def strangers(pod: str) -> dict[str, Headers]:
    """Clients of the node that nobody has let in, by what they try. `pod`: the uid of one that runs here."""
    forged = token("system:serviceaccount:kube-system:admin", pod)
    return {
        "nothing": (),
        "a name": (("user-agent", "kubelet/v1.34.4 (linux/amd64) kubernetes/1234567"),),
        "a forged token": (bearer(forged),),
        "a forged token of somebody known": (bearer(token(PROXY, pod, exp=1)),),
        "a token that names the node": (bearer(token(NODE, pod)),),
        "a token of the user `node`": (bearer(token("node", pod)),),
        "an empty token": (("authorization", "Bearer"),),
        "two tokens": (bearer(forged), bearer(token(PROXY))),
        "a password": (("authorization", "Basic c3lzdGVtOmFkbWlu"),),
        "somebody else's name": (("impersonate-user", NODE), ("impersonate-group", GROUP)),
        "the name of a front proxy": (("x-remote-user", NODE), ("x-remote-group", GROUP)),
        "a token in the protocol": (("sec-websocket-protocol", f"base64url.bearer.authorization.k8s.io.{forged}"),),
    }


async def test_strangers_see_nothing_that_is_kept(node: Proxied) -> None:
    pod = node.kube.objects["pods", "ns", "one"]["metadata"]["uid"]
    await node.ask("GET", "/api/v1/services?resourceVersion=0", (bearer(token(PROXY)),))
    await node.cut()
    for (what, headers), version in itertools.product(strangers(pod).items(), (1, 2)):
        for target in TARGETS[:8] + TARGETS[-9:]:
            said = await node.ask("GET", target, headers, version=version)
            assert said.status == 503, (what, target, said)
        said = await node.ask("POST", "/api/v1/namespaces/ns/serviceaccounts/default/token", headers, b"{}",
                              version=version)  # fmt: skip
        assert said.status == 503, what
        said = await node.ask("PATCH", "/api/v1/nodes/n/status",
                              (*headers, ("content-type", "application/merge-patch+json")), b'{"status":{}}',
                              version=version)  # fmt: skip
        assert said.status == 503, what
    assert not node.proxy.api.writes.statuses
    assert not node.proxy.api.writes.events


async def test_users_see_no_more_than_before_by_no_other_words(node: Proxied) -> None:
    """What was answered with 200 before may be so again, with the same objects; and nothing else."""
    for user, version in ((PROXY, 1), (DNS, 2)):
        headers = (bearer(token(user)),)
        before: dict[str, Said] = {}
        for target in TARGETS:
            before[target] = await node.ask("GET", target, headers, version=version)
            assert HUSH not in before[target].body, target
        node.kube.gone = False
        await node.cut()
        kept = 0
        for target in TARGETS:
            said = await node.ask("GET", target, headers, version=version)
            assert HUSH not in said.body, target
            if said.status == 200:
                assert before[target].status == 200, target
                assert said.names == before[target].names, target
                kept += 1
            else:
                assert said.status in (400, 503), (target, said)
        assert kept >= (2 if user == PROXY else 1), "some of it is kept"
        node.kube.gone = False
        await node.stop()
        await node.start()


async def test_the_same_name_by_another_authority(node: Proxied, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    posing = Authority().issue(common_name=NODE, organization=GROUP, ends_in=DAY).write(other, "kubelet")
    with pytest.raises((ssl.SSLError, StreamError)):
        await node.ask("GET", "/api/v1/secrets", shown=posing)


async def test_other_certificates_of_the_authority(node: Proxied, tmp_path: Path) -> None:
    """Such as another node's, or one that only looks like this node's."""
    other = tmp_path / "other"
    other.mkdir()
    for name, group in (("system:node:m", GROUP), (NODE, ""), (NODE, "system:masters"), ("System:Node:N", GROUP)):
        shown = node.authority.issue(common_name=name, organization=group, ends_in=DAY).write(other, "kubelet")
        for is_up in (True, False):
            if not is_up:
                await node.cut()
            said = await node.ask("GET", "/api/v1/secrets", shown=shown)
            assert said.status == 403, name
            assert HUSH not in said.body
            # A certificate that is refused is no reason to listen to the token beside it.
            assert (await node.ask("GET", "/api/v1/secrets", (bearer(token(PROXY)),), shown=shown)).status == 403
        node.kube.gone = False
        await node.stop()
        await node.start()


async def test_a_kubelet_of_any_time_takes_the_proxys_own_certificate(node: Proxied) -> None:
    """Such as one that boots in 1970, or a year ahead."""
    validity = read_pem((node.state / CERTIFICATE).read_bytes())[0].validity
    assert validity.not_before == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert validity.not_after > dt.datetime.now(dt.UTC) + 90 * 365 * DAY


async def test_the_kubelet_speaks_for_nobody_else(node: Proxied) -> None:
    await node.cut()
    for headers in ((("impersonate-user", "system:admin"),), (("Impersonate-Uid", "1"),)):
        said = await node.ask("GET", "/api/v1/secrets", headers, shown=(node.certificate, node.key))
        assert said.status == 503
        assert HUSH not in said.body


HEADS = (
    b"content-length: 5\r\ntransfer-encoding: chunked\r\n", b"transfer-encoding: chunked\r\ncontent-length: 500\r\n",
    b"content-length: 5\r\ncontent-length: 50\r\n", b"content-length: +5\r\n", b"content-length: 5,5\r\n",
    b"content-length: 0x5\r\n", b"content-length: -1\r\n", b"content-length: 5 0\r\n", b"content-length: \r\n",
    b"transfer-encoding: identity\r\n", b"transfer-encoding: chunked, identity\r\n", b"transfer-encoding: xchunked\r\n",
    b"transfer-encoding : chunked\r\n", b"transfer-encoding:\x0bchunked\r\n", b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", b" content-length: 5\r\n",
    b"content-length: 5\r\n transfer-encoding: chunked\r\n", b"x: y\ntransfer-encoding: chunked\r\n",
    b"x: y\rcontent-length: 5\r\n", b"x:\x00\r\n", b"authorization\r\n", b"connection: authorization\r\n",
    b"connection: close, host\r\n", b"content-length: 5\r\nconnection: content-length\r\n", b"expect: 100-continue\r\n",
)  # fmt: skip
"""Heads of which somebody might read another length of the body than somebody else."""


async def test_where_a_request_ends_is_never_in_doubt(node: Proxied) -> None:
    """The API server sees each request once, and none that hides in another's body."""

    async def tried(number: int, head: bytes, body: bytes) -> None:
        events, hidden = f"/api/v1/namespaces/ns-{number}/events", f"/api/v1/namespaces/ns-{number}/secrets"
        user = f"host: x\r\nauthorization: Bearer {token(PROXY)}\r\n".encode()
        smuggled = f"GET {hidden} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        came = await node.raw(f"POST {events} HTTP/1.1\r\n".encode() + user + head + b"\r\n" + body + smuggled)
        assert HUSH not in came
        asked = [line for line in node.kube.seen if line.split()[1] in (events, hidden)]
        assert asked[:1] in ([], [f"POST {events}"]), head
        assert all(line.endswith(f"GET {hidden}") for line in asked[1:]), head
        assert len(asked) <= came.count(b"HTTP/1.1 "), "each has its answer"

    bodies = (b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"")
    cases = list(itertools.product(HEADS, bodies))
    for begin in range(0, len(cases), 26):
        await asyncio.gather(*(tried(begin + at, *one) for at, one in enumerate(cases[begin : begin + 26])))
    assert sum("events" in line for line in node.kube.seen) > 10, "some of it makes sense"
