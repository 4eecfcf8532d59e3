"""The start of a link: it dials a carrier to one server, sends Hello, and reads the answer (PROTO 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.link.addresses import Addresses
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier import Carrier, CarrierLost, DialOptions, dial_carrier
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.aio.process.clock import MONOTONIC, Clock
from tunnel.aio.sessions.incoming import Acceptor
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.faults import SERVER_SILENT
from tunnel.core.wire.handshake import Welcome, decode_answer, encode_hello
from tunnel.core.wire.limits import Limits
from tunnel.core.wire.spoken import spoken_s

GREETING_TIMEOUT_S = 10.0
"""The seconds that the server may take to answer Hello."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """This end of every link: what it says of itself, and what serves the streams that come down."""

    tls: ClientTls
    """The box's credentials, which are read anew at each dial."""
    addresses: Addresses
    acceptor: Acceptor
    describe: Callable[[], tunnel_pb2.Node]
    """The function that reads what the box is, before each Hello; may block on files of the kernel."""
    version: str
    limits: Limits
    memory: Budget
    """What windows, queues and kept packets of all sessions may take together."""
    instance_id: bytes
    """The id of this process."""
    clock: Clock = MONOTONIC
    """The clock of every session."""


async def dial(server: str, box: Box, options: DialOptions) -> Carrier:
    """Dials a server by its name, and where that does not resolve now by the address that it had when it last did.

    Raises:
        CarrierLost: it cannot be dialled; the text names the hop that failed.
    """
    try:
        carrier = await dial_carrier(server, box.tls, options)
    except CarrierLost as lost:
        known = [] if lost.refused else await box.addresses.in_place_of_dns(server, options)
        if not known:
            raise
        carrier = await dial_carrier(server, box.tls, options, at=known)
    else:
        box.addresses.reached(server, options)
    return carrier


async def greet(carrier: Carrier, box: Box, resume_session_id: bytes, last_received: int) -> Welcome:
    """Sends Hello, waits for the answer and returns it.

    Args:
        carrier: a carrier that was dialled for this.
        box: what Hello says.
        resume_session_id: the id of the session to go on with; empty for a new one.
        last_received: the highest packet that came in that session.

    Raises:
        CarrierLost: there was no answer.
        TunnelError: the server refuses, or its answer breaks the protocol.
    """
    hello = encode_hello(
        version=box.version,
        instance_id=box.instance_id,
        node=await asyncio.to_thread(box.describe),
        limits=box.limits,
        resume_session_id=resume_session_id,
        last_received=last_received,
    )
    try:
        async with asyncio.timeout(GREETING_TIMEOUT_S):
            await carrier.write(hello)
            answer = await carrier.read()
    except TimeoutError:
        text = f"{carrier.peer}: no answer to Hello within {spoken_s(GREETING_TIMEOUT_S)}"
        raise CarrierLost(text, SERVER_SILENT) from None
    if answer is None:
        raise CarrierLost("the server ended the link without an answer", SERVER_SILENT)
    return decode_answer(answer)
