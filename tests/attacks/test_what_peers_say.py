"""Every place where something comes in that a peer says: from there on it moves no cursor, and has a bound.

A field of a message that is not in the table fails a test here, so that a new one is thought of.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import grpc
import pytest
import structlog
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from cloud_server.agents.facts import facts_of
from cloud_server.frontends.fleet.events import event_objects
from cloud_server.frontends.fleet.objects import node_object
from cloud_server.frontends.fleet.pod_fields import Faults, Unfit
from cloud_server.frontends.fleet.pods import pod_of
from protos import tunnel_pb2 as pb
from tests.support.duplex_pair import duplex_pair
from tests.support.fleet import START, box
from tests.support.pki import Authority
from tunnel.aio.carriers.carrier_errors import lost_from_status
from tunnel.aio.carriers.enrollment import answer_join
from tunnel.aio.http.http1 import ClientConnection
from tunnel.aio.identity.peer_identity import PeerIdentity, Presented
from tunnel.aio.process.config import LogConfig
from tunnel.aio.process.logs import configure_logs
from tunnel.aio.sockets.http_proxy import HttpProxy
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import decode_packet
from tunnel.core.wire.errors import RemoteProtocolError
from tunnel.core.wire.handshake import decode_answer, decode_hello, decode_node, decode_refusal
from tunnel.core.wire.limits import SESSION_ID_BYTES

EVIL = "x\x1b[2J\x1b]0;owned\x07\n\u202ey"
"""A screen that is wiped, a title that is set, a line that ends, and what is read from right to left."""
SHOWN = "x????y"
ID = b"i" * SESSION_ID_BYTES
JOINING = "spiffe://longline/join/1"


def _hello(node: pb.Node | None = None, version: str = "1") -> pb.Hello:
    hello = pb.Hello(protocol_min=1, protocol_max=1, instance_id=ID, node=node, version=version)
    return decode_hello(pb.Envelope(hello=hello).SerializeToString())


def _node(**fields: Any) -> pb.Node:
    """A Node that came in Hello, which must be the same as one that came by itself."""
    node = pb.Node(**fields)
    greeted = _hello(node).node
    assert decode_node(node.SerializeToString()) == greeted
    return greeted


def _welcome(version: str) -> str:
    welcome = pb.Welcome(protocol=1, session_id=ID, suspect_after_ms=1, dead_after_ms=2, version=version)
    return decode_answer(pb.Envelope(welcome=welcome).SerializeToString()).version


def _frame(**kind: Any) -> Any:
    (frame,) = decode_packet(pb.Packet(seq=1, frames=[pb.Frame(stream_id=1, **kind)])).frames
    return frame


def _open(**fields: Any) -> f.Open:
    target = pb.TcpTarget(host="h", port=1)
    return cast("f.Open", _frame(open=pb.Open(tcp=target, deadline_ms=1, **fields)))


class _Handler:
    """The authority of a server. It takes note of what it is asked."""

    asked: pb.JoinRequest

    async def join(self, _peer: Presented, request: pb.JoinRequest) -> pb.JoinResponse:
        self.asked = request
        return pb.JoinResponse()


class _Context:
    """A call of a box that shows a join certificate."""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [Authority().issue(uris=[JOINING]).certificate_pem]}


def _join(**fields: Any) -> pb.JoinRequest:
    handler = _Handler()
    identity = PeerIdentity(uri=JOINING, role="join", name="1", spki_sha256=b"", not_after=START)
    raw = pb.JoinRequest(**fields).SerializeToString()
    asyncio.run(answer_join(cast("Any", handler), identity, raw, cast("Any", _Context())))
    return handler.asked


FIELDS: dict[str, Callable[[str], str]] = {
    "Hello.version": lambda text: _hello(version=text).version,
    "Welcome.version": _welcome,
    "Refusal.text": lambda text: decode_refusal(pb.Refusal(code=1, text=text)).text,
    "Node.hostname": lambda text: _node(hostname=text).hostname,
    "Node.os_image": lambda text: _node(os_image=text).os_image,
    "Node.kernel": lambda text: _node(kernel=text).kernel,
    "Node.architecture": lambda text: _node(architecture=text).architecture,
    "Node.machine_id": lambda text: _node(machine_id=text).machine_id,
    "Node.addresses": lambda text: _node(addresses=["::1", text]).addresses[1],
    "Node.services": lambda text: _node(services=["a", text]).services[1],
    "LabelsEntry.key": lambda text: next(iter(_node(labels={text: "v"}).labels)),
    "LabelsEntry.value": lambda text: _node(labels={"k": text}).labels["k"],
    "Fact.text": lambda text: facts_of(_node(facts=[pb.Fact(code="LL2018", text=text)]))[0].text,
    "Open.principal_text": lambda text: _open(principal_text=text).principal.name,
    "Open.trace_id": lambda text: _open(trace_id=text).trace_id,
    "Principal.name": lambda text: _open(principal=pb.Principal(name=text)).principal.name,
    "Principal.groups": lambda text: _open(principal=pb.Principal(groups=[text])).principal.groups[0],
    "Principal.proof": lambda text: _open(principal=pb.Principal(proof=text)).principal.proof,
    "Accept.resolved_address": lambda text: _frame(accept=pb.Accept(resolved_address=text)).resolved_address,
    "Reset.text": lambda text: _frame(reset=pb.Reset(text=text)).text,
    "GoAway.text": lambda text: _frame(go_away=pb.GoAway(text=text)).text,
    "JoinRequest.version": lambda text: _join(version=text).version,
    "JoinRequest.agent_name": lambda text: _join(agent_name=text).agent_name,
}
"""Each text in our messages, and how it is read."""
NO_TEXTS = {
    "Hello.features": "words, or the message is refused",
    "Welcome.features": "the same",
    "Welcome.server_id": "the same",
    "Welcome.servers": "the same",
    "Fact.code": "the same",
    "Open.service": "the same",
    "Open.agent": "the same",
    "TcpTarget.host": "the same",
    "JoinRequest.kubernetes_token": "shown to the cluster's API and to nobody else",
    "JoinResponse.agent_name": "not read: a box has its name from its certificate",
}


def _texts(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield f"{message.name}.{field.name}"
    for inner in message.nested_types:
        yield from _texts(inner)


def test_no_text_of_a_message_is_forgotten() -> None:
    there = {name for message in pb.DESCRIPTOR.message_types_by_name.values() for name in _texts(message)}
    assert there == FIELDS.keys() | NO_TEXTS.keys()


def _status(text: str) -> str:
    return lost_from_status(grpc.StatusCode.PERMISSION_DENIED, text, "peer").text.removeprefix("peer: ")


def _pod(part: str, **fields: Any) -> Any:
    raw = {"metadata": {"name": "web"}, "spec": {"containers": []}, "status": {}}
    return pod_of({**raw, part: {**raw[part], **fields}}, "box-7", Faults())[part]  # type: ignore[dict-item]


def _container(**fields: Any) -> Any:
    return _pod("spec", containers=[{"name": "web", **fields}])["containers"][0]


def _state(**fields: Any) -> Any:
    statuses = [{"name": "web", "state": {"waiting": fields}}]
    return _pod("status", containerStatuses=statuses)["containerStatuses"][0]["state"]["waiting"]


def _info(**fields: Any) -> Any:
    return node_object(box("box-7", node=pb.Node(**fields)), START)["status"]["nodeInfo"]


def _event(text: str) -> str:
    node = pb.Node(facts=[pb.Fact(code="LL2018", text=text)])
    return str(event_objects(box("box-7", node=node), START)[0]["message"])


def _reason(text: str) -> str:
    async def answered() -> str:
        ours, theirs = duplex_pair()
        line = "".join(char for char in text if char >= " " and ord(char) < 256)  # others end the head
        await theirs.write(f"HTTP/1.1 200 {line}\r\ncontent-length: 0\r\n\r\n".encode("latin-1"))
        return (await ClientConnection(ours).request("GET", "/", [("host", "h")])).reason

    return asyncio.run(answered())


def _proxy(text: str) -> str:
    proxy = HttpProxy(host="p", port=1, user=None, password="", source="x")
    line = text.replace("\n", "\x00").encode("latin-1", "replace").decode("latin-1")
    told = proxy.refusal(f"HTTP/1.1 502 {line}\r\n\r\n".encode("latin-1"), "h", 1)
    assert told is not None
    return told


OTHERS: dict[str, Callable[[str], str]] = {
    "status of a call": _status,
    "pod phase": lambda text: _pod("status", phase=text)["phase"],
    "pod reason": lambda text: _pod("status", reason=text)["reason"],
    "pod message": lambda text: _pod("status", message=text)["message"],
    "pod address": lambda text: _pod("status", podIP=text)["podIP"],
    "pod condition": lambda text: _pod("status", conditions=[{"type": text, "status": "True"}])["conditions"][0][
        "type"
    ],
    "pod annotation": lambda text: _pod("metadata", annotations={"a": text})["annotations"].get("a", ""),
    "pod owner": lambda text: _pod(
        "metadata", ownerReferences=[{"apiVersion": "v1", "kind": text, "name": "n", "uid": "u"}]
    )["ownerReferences"][0]["kind"],
    "container image": lambda text: _container(image=text)["image"],
    "container command": lambda text: _container(command=[text])["command"][0],
    "container state": lambda text: _state(reason=text)["reason"],
    "node kernel": lambda text: _info(kernel=text)["kernelVersion"],
    "node system": lambda text: _info(os_image=text)["osImage"],
    "node event": _event,
    "reason phrase": _reason,
    "refusal of a proxy": _proxy,
}
"""Texts that come by other ways."""


@pytest.mark.parametrize("name", [*FIELDS, *OTHERS])
def test_what_a_peer_says_moves_no_cursor_and_has_an_end(name: str) -> None:
    read = FIELDS.get(name) or OTHERS[name]
    if name not in ("reason phrase", "refusal of a proxy"):  # HTTP has its own idea of what a line is
        assert read(EVIL) == SHOWN
    for text in (EVIL, "\x9b2J\x85", "\x1b" * 64):
        assert read(text).isprintable()
    with suppress(RemoteProtocolError):  # the message is refused as a whole
        assert len(read("x" * 4096)) <= 2100


@pytest.mark.parametrize("text", [EVIL, "a b/c", "x" * 300, "", {"a": 1}])
@pytest.mark.parametrize("field", ["name", "namespace", "container", "label", "annotation"])
def test_what_must_be_a_name_is_left_out(field: str, text: Any) -> None:
    metadata: dict[str, Any] = {"name": "web", "labels": {}, "annotations": {}}
    spec: dict[str, Any] = {"containers": []}
    if field in ("name", "namespace"):
        metadata[field] = text
    elif field == "container":
        spec["containers"] = [{"name": text}]
    elif isinstance(text, str):
        metadata[f"{field}s"][text] = "v"
    try:
        pod = pod_of({"metadata": metadata, "spec": spec}, "box-7", Faults())
    except Unfit:
        return
    assert pod["spec"]["containers"] == []
    assert not pod["metadata"]["labels"]
    assert not pod["metadata"]["annotations"]
    assert json.dumps(text)[1:-1] not in json.dumps(pod["metadata"]) or text == ""


def test_a_log_for_people_obeys_nobody() -> None:
    """Whatever was forgotten above ends here."""
    lines: list[bytes] = []

    class Sink:
        def write(self, line: bytes) -> None:
            lines.append(line)

    try:
        folding = configure_logs(LogConfig(format="console"), Sink(), terminal=False)
        structlog.get_logger("test").info(f"agent {EVIL}", agent=EVIL)
        folding.flush()
    finally:
        structlog.reset_defaults()
    (line,) = lines
    assert line.decode().removesuffix("\n").isprintable()
