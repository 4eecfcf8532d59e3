"""Nodes of a cluster that join as themselves: the cluster says who a token is of, and a name is given to no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud_server.kubernetes.access import ClusterUnavailable, Reviewed
from cloud_server.trust.node_tokens import NODE_NAME, POD_NAME, NodeTokenRefused, NodeTokens
from cloud_server.trust.records import AGENTS, AgentRecord
from cloud_server.trust.store import Change, Good
from protos import tunnel_pb2
from tests.support.carriers import DIRECT
from tests.support.enrolling import Issuer, Office, open_office
from tunnel.aio.carriers.carrier_errors import EnrollmentRefused
from tunnel.aio.carriers.enrollment import call_join
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.keys import new_key, request_for
from tunnel.aio.identity.tls_material import ClientTls

ACCOUNT = "system:serviceaccount:longline-agents:edge-agent"
GOOD = Reviewed(True, ACCOUNT, ("longline",), {NODE_NAME: ("node-1",), POD_NAME: ("edge-agent-x",)})


async def review(token: str, audience: str) -> Reviewed:
    """A cluster whose tokens are the names of nodes."""
    assert audience == "longline"
    return GOOD._replace(extra={**GOOD.extra, NODE_NAME: (token,)})


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path, NodeTokens(review)) as made:
        made.nodes.use(["longline-agents/edge-agent"], "longline")
        yield made


async def token_of(place: Office, pattern: str = "*") -> JoinToken:
    issuer = Issuer(place.authority)
    return await place.tokens.create(issuer, pattern, timedelta(hours=1), labels={"kind": "node"}, kubernetes=True)


async def join(place: Office, token: JoinToken, node: str, name: str = "") -> str:
    """The name that a pod gets which shows the token of a node, and wishes for a name."""
    tls = ClientTls(certificate=token.certificate_pem, key=token.key_pem, ca=token.ca_pem)
    request = tunnel_pb2.JoinRequest(csr_der=request_for(new_key()), agent_name=name, kubernetes_token=node)
    return (await call_join(place.address, tls, request, DIRECT)).agent_name


async def test_nodes_join_as_themselves_with_one_token_as_often_as_they_are_lost(place: Office) -> None:
    token = await token_of(place)
    assert [await join(place, token, node) for node in ("node-1", "node-2", "node-1")] == ["node-1", "node-2", "node-1"]
    assert [name for name, _ in place.ended] == ["node-1", "node-2", "node-1"]
    record = place.store.get(AGENTS, "node-2")
    assert isinstance(record, Good)
    assert (record.value.node, record.value.labels) == ("node-2", {"kind": "node"})
    assert [one["node"] for one in place.audit.of("joined")] == ["node-1", "node-2", "node-1"]


async def test_a_node_that_wishes_for_the_name_of_another_gets_its_own(place: Office) -> None:
    assert await join(place, await token_of(place), "node-2", "node-1") == "node-2"


async def test_the_join_token_alone_is_worth_nothing(place: Office) -> None:
    with pytest.raises(EnrollmentRefused, match="wants a node's token beside it"):
        await join(place, await token_of(place), "")
    assert place.audit.of("join_refused")[0]["code"] == "LL2057"


async def test_the_pattern_of_the_token_holds_for_nodes_too(place: Office) -> None:
    with pytest.raises(EnrollmentRefused, match="no name like lyon-"):
        await join(place, await token_of(place, "lyon-*"), "node-1")


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({"node": ""}, "has joined in another way"),
        ({"node": "node-1.other"}, "has joined in another way"),
        ({"node": "node-1", "revoked": datetime.now(UTC)}, "was revoked"),
    ],
)
async def test_a_name_of_somebody_else_is_not_given_nor_one_that_was_revoked(
    place: Office, known: dict[str, object], text: str
) -> None:
    record = AgentRecord(name="node-1", joined=datetime.now(UTC), spki_sha256="00" * 32)
    await place.store.commit(Change(AGENTS, "node-1", replace(record, **known)))  # type: ignore[arg-type]
    with pytest.raises(EnrollmentRefused, match=f"{text}: cloud-server agent forget node-1"):
        await join(place, await token_of(place), "node-1")
    await place.store.commit(Change(AGENTS, "node-1", None))
    assert await join(place, await token_of(place), "node-1") == "node-1"


async def test_an_ordinary_token_asks_no_cluster(place: Office) -> None:
    assert await join(place, await place.token("box-7"), "node-1") == "box-7"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (GOOD._replace(authenticated=False), "does not know the node's token"),
        (GOOD._replace(audiences=("https://kubernetes.default.svc",)), "for audience longline"),
        (GOOD._replace(audiences=()), "for audience longline"),
        (GOOD._replace(user="system:serviceaccount:default:edge-agent"), "not among the accounts"),
        (GOOD._replace(user="longline-agents/edge-agent"), "not among the accounts"),
        (GOOD._replace(user="system:node:node-1"), "not among the accounts"),
        (GOOD._replace(extra={}), "bound to no pod on a node"),
        (GOOD._replace(extra={NODE_NAME: ("node-1",)}), "bound to no pod on a node"),
        (GOOD._replace(extra={**GOOD.extra, NODE_NAME: ("node-1", "node-2")}), "bound to no pod on a node"),
        (GOOD._replace(extra={**GOOD.extra, NODE_NAME: ("node-1.example.com",)}), "cannot name an agent"),
    ],
)
async def test_what_the_cluster_says_and_is_not_taken(said: Reviewed, text: str) -> None:
    async def review(_token: str, _audience: str) -> Reviewed:
        return said

    nodes = NodeTokens(review)
    with pytest.raises(NodeTokenRefused, match="takes no tokens of nodes"):
        await nodes.node_of("secret")
    nodes.use(["longline-agents/edge-agent"], "longline")
    with pytest.raises(NodeTokenRefused, match=text) as refused:
        await nodes.node_of("secret")
    assert "secret" not in str(refused.value)


async def test_a_cluster_that_is_away_and_a_token_without_an_end() -> None:
    async def review(_token: str, _audience: str) -> Reviewed:
        raise ClusterUnavailable("no route")

    nodes = NodeTokens(review)
    nodes.use(["longline-agents/edge-agent"], "longline")
    with pytest.raises(NodeTokenRefused, match="cannot be asked about the node's token: no route"):
        await nodes.node_of("secret")
    with pytest.raises(NodeTokenRefused, match="wants a node's token"):
        await nodes.node_of("x" * 16385)
