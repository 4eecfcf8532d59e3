"""The first two messages of a carrier (PROTO 3).

They settle what each side offers, which protocol version is spoken, and whether a session goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protos import tunnel_pb2 as pb
from tunnel.core.wire.codec import clip_text, decode_envelope, is_word
from tunnel.core.wire.errors import Code, RemoteProtocolError, SessionRefused
from tunnel.core.wire.faults import decoded
from tunnel.core.wire.features import FEATURES, MAX_FEATURE_BYTES, MAX_FEATURES, common
from tunnel.core.wire.limits import (
    MAX_FACT_CODE_BYTES,
    MAX_FACT_TEXT_BYTES,
    MAX_FACTS,
    MAX_NODE_BYTES,
    MAX_TEXT_BYTES,
    SESSION_ID_BYTES,
    Limits,
    Timing,
)
from tunnel.core.wire.spoken import printable

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
MAX_HANDSHAKE_BYTES = 64 * 1024
"""The largest Hello or Welcome. Hello comes from a peer that is known but not yet welcome, and its labels and addresses
fit in this many times over.
"""
MAX_NODE_ENTRIES = 256
"""The most labels in a Hello; the same bound holds for its addresses and for its services."""
MAX_VERSION_CHARS = 64
"""The longest version that is shown. Ours have some 20 characters; what is longer is cut."""
MAX_SERVER_ID_BYTES = 64
_NODE_TEXTS = ("hostname", "os_image", "kernel", "architecture", "machine_id")
MAX_SERVERS = 64
MAX_SERVER_BYTES = 261
"""The longest address of a server: `[host]:port` with the longest name that DNS has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """What the dialling side learns from the server's answer to Hello."""

    protocol: int
    version: str
    session_id: bytes
    resumed: bool
    last_received: int
    limits: pb.Limits
    timing: Timing
    features: frozenset[str]
    """The features that both sides have beyond protocol 1."""
    server_id: str
    """The id that tells the server from others of its cloud; empty for an older build."""
    servers: tuple[str, ...]
    """The addresses, `host:port`, of other servers of the same cloud."""


def encode_hello(
    *,
    version: str,
    instance_id: bytes,
    node: pb.Node,
    limits: Limits,
    resume_session_id: bytes = b"",
    last_received: int = 0,
) -> bytes:
    """Returns the agent's first message. An empty `resume_session_id` asks for a new session."""
    hello = pb.Hello(
        protocol_min=PROTOCOL_MIN,
        protocol_max=PROTOCOL_MAX,
        version=version,
        instance_id=instance_id,
        resume_session_id=resume_session_id,
        last_received=last_received,
        limits=_limits(limits),
        node=node,
        features=sorted(FEATURES),
    )
    return pb.Envelope(hello=hello).SerializeToString()


def decode_hello(message: bytes) -> pb.Hello:
    """Checks the agent's first message and returns its Hello, with all texts of it fit to be shown.

    Raises:
        RemoteProtocolError: it is no Hello, or breaks a bound of PROTO 3.
    """
    envelope = decode_envelope(message, MAX_HANDSHAKE_BYTES)
    if envelope.WhichOneof("body") != "hello":
        raise RemoteProtocolError("the first message is not a Hello")
    hello = envelope.hello
    if len(hello.instance_id) != SESSION_ID_BYTES or len(hello.resume_session_id) not in (0, SESSION_ID_BYTES):
        raise RemoteProtocolError("Hello with an id of the wrong length")
    check_node(hello.node, hello.version)
    hello.version = printable(hello.version, MAX_VERSION_CHARS)
    clean_node(hello.node)
    _check_list("Hello", "features", hello.features, MAX_FEATURES, MAX_FEATURE_BYTES)
    return hello


def decode_node(data: bytes) -> pb.Node:
    """Reads what an agent tells of its box anew, outside of Hello, and returns the Node, with all texts of it fit to be
    shown.

    Raises:
        RemoteProtocolError: it is no Node, or breaks a bound of PROTO 3.
    """
    if len(data) > MAX_NODE_BYTES:
        raise RemoteProtocolError(f"Node of more than {MAX_NODE_BYTES} bytes")
    node = pb.Node()
    try:
        node.ParseFromString(data)
    except DecodeError:
        raise RemoteProtocolError("what should be a Node cannot be read") from None
    check_node(node)
    clean_node(node)
    return node


def clean_node(node: pb.Node) -> None:
    """Makes all texts of a Node that keeps its bounds fit to be shown. Labels that are the same then become one."""
    for name in _NODE_TEXTS:
        text = getattr(node, name)
        if not text.isprintable():
            setattr(node, name, printable(text))
    for texts in (node.addresses, node.services):
        if not all(map(str.isprintable, texts)):
            texts[:] = map(printable, texts)
    if not all(name.isprintable() and value.isprintable() for name, value in node.labels.items()):
        cleaned = {printable(name): printable(value) for name, value in node.labels.items()}
        node.labels.clear()
        node.labels.update(cleaned)
    for fact in node.facts:
        if not fact.text.isprintable():
            fact.text = printable(fact.text)


def check_node(node: pb.Node, *others: str) -> None:
    """Checks the bounds of what an agent tells of its box, and the length of other texts beside it.

    Raises:
        RemoteProtocolError: it breaks a bound of PROTO 3.
    """
    if max(len(node.labels), len(node.addresses), len(node.services)) > MAX_NODE_ENTRIES:
        raise RemoteProtocolError(f"Hello with more than {MAX_NODE_ENTRIES} labels, addresses or services")
    texts = (*(getattr(node, name) for name in _NODE_TEXTS), *others)
    if any(
        len(text) > MAX_TEXT_BYTES
        for text in (*texts, *node.addresses, *node.services, *node.labels, *node.labels.values())
    ):
        raise RemoteProtocolError(f"Hello with a text of more than {MAX_TEXT_BYTES} characters")
    if len(node.facts) > MAX_FACTS or any(
        len(fact.text) > MAX_FACT_TEXT_BYTES or not is_word(fact.code) or len(fact.code) > MAX_FACT_CODE_BYTES
        for fact in node.facts
    ):
        raise RemoteProtocolError(f"Hello with more than {MAX_FACTS} facts, or one that is too long")


def choose_protocol(hello: pb.Hello) -> int:
    """Returns the highest protocol version that both sides speak.

    Raises:
        SessionRefused: there is none.
    """
    chosen = min(PROTOCOL_MAX, hello.protocol_max)
    if chosen < max(PROTOCOL_MIN, hello.protocol_min):
        raise SessionRefused(
            f"protocol {hello.protocol_min}-{hello.protocol_max} is not spoken here, {PROTOCOL_MIN}-{PROTOCOL_MAX} is",
            Code.UNSUPPORTED_VERSION,
        )
    return chosen


def encode_welcome(
    *,
    protocol: int,
    version: str,
    session_id: bytes,
    resumed: bool,
    last_received: int,
    limits: Limits,
    timing: Timing,
    features: Iterable[str] = (),
    server_id: str = "",
    servers: Sequence[str] = (),
) -> bytes:
    """Returns the server's answer to a Hello that it takes.

    `features` are those of the Hello that this side has too; `servers` are the addresses of others of the same cloud.
    """
    welcome = pb.Welcome(
        protocol=protocol,
        version=version,
        session_id=session_id,
        resumed=resumed,
        last_received=last_received,
        limits=_limits(limits),
        suspect_after_ms=int(timing.suspect_after_s * 1000),
        dead_after_ms=int(timing.dead_after_s * 1000),
        resume_window_ms=int(timing.resume_window_s * 1000),
        features=sorted(features),
        server_id=server_id,
        servers=servers,
    )
    return pb.Envelope(welcome=welcome).SerializeToString()


def encode_refusal(error: SessionRefused) -> bytes:
    """Returns the server's answer to a Hello that it does not take."""
    refusal = pb.Refusal(code=error.code, text=clip_text(error.told), retry_after_ms=int(error.retry_after_s * 1000))
    return pb.Envelope(refusal=refusal).SerializeToString()


def decode_refusal(refusal: pb.Refusal) -> SessionRefused:
    """Returns the error that a Refusal stands for.

    A Refusal answers Hello or ends a running session (PROTO 3.5 and 7.6).
    """
    text, fault = decoded(printable(clip_text(refusal.text)) or "refused without a reason")
    return SessionRefused(text, Code.from_wire(refusal.code), refusal.retry_after_ms / 1000, fault)


def decode_answer(message: bytes) -> Welcome:
    """Checks the server's answer to Hello and returns what its Welcome says.

    Raises:
        SessionRefused: the server does not take this session.
        RemoteProtocolError: it is no answer, or breaks a bound of PROTO 3.
    """
    envelope = decode_envelope(message, MAX_HANDSHAKE_BYTES)
    match envelope.WhichOneof("body"):
        case "refusal":
            raise decode_refusal(envelope.refusal)
        case "welcome":
            return _checked(envelope.welcome)
        case _:
            raise RemoteProtocolError("the answer to Hello is neither Welcome nor Refusal")


def _checked(welcome: pb.Welcome) -> Welcome:
    if len(welcome.session_id) != SESSION_ID_BYTES:
        raise RemoteProtocolError("Welcome with a session id of the wrong length")
    if not PROTOCOL_MIN <= welcome.protocol <= PROTOCOL_MAX:
        raise RemoteProtocolError(f"Welcome with protocol {welcome.protocol}, which was not offered")
    if not 0 < welcome.suspect_after_ms < welcome.dead_after_ms:
        raise RemoteProtocolError("Welcome with times of life that make no sense")
    _check_list("Welcome", "features", welcome.features, MAX_FEATURES, MAX_FEATURE_BYTES)
    _check_list("Welcome", "servers", welcome.servers, MAX_SERVERS, MAX_SERVER_BYTES)
    if welcome.server_id:
        _check_list("Welcome", "server ids", [welcome.server_id], 1, MAX_SERVER_ID_BYTES)
    return Welcome(
        protocol=welcome.protocol,
        version=printable(welcome.version, MAX_VERSION_CHARS),
        session_id=welcome.session_id,
        resumed=welcome.resumed,
        last_received=welcome.last_received,
        limits=welcome.limits,
        timing=Timing(
            suspect_after_s=welcome.suspect_after_ms / 1000,
            dead_after_s=welcome.dead_after_ms / 1000,
            resume_window_s=welcome.resume_window_ms / 1000,
        ),
        features=common(welcome.features),
        server_id=welcome.server_id,
        servers=tuple(welcome.servers),
    )


def _check_list(message: str, name: str, texts: Sequence[str], max_count: int, max_bytes: int) -> None:
    """Raises RemoteProtocolError for too many texts, or one that is too long, empty, or no word of printable ASCII."""
    if len(texts) > max_count or not all(len(text) <= max_bytes and is_word(text) for text in texts):
        raise RemoteProtocolError(f"{message} with more than {max_count} {name}, or one of more than {max_bytes} bytes")


def _limits(limits: Limits) -> pb.Limits:
    return pb.Limits(
        max_streams=limits.max_streams,
        max_data_bytes=limits.max_data_bytes,
        max_packet_bytes=limits.max_packet_bytes,
    )
