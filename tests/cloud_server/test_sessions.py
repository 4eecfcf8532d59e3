"""Whom the server takes a session from: the name must be theirs when the session is made, not when they connected."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cloud_server.identity.agents import AgentStore
from cloud_server.registry import Registry
from cloud_server.sessions import SessionAcceptor
from protos import tunnel_pb2
from tests.support.memory_carrier import MemoryCarrier, carrier_pair
from tests.support.waits import eventually
from tunnel.core.budget import Budget
from tunnel.core.errors import Code, SessionRefused
from tunnel.core.handshake import decode_answer, encode_hello
from tunnel.core.limits import MIB, SESSION_ID_BYTES, Limits, Timing

BOX = "box-7"
KEY, OTHER_KEY = b"k" * 32, b"o" * 32


class Waiting(MemoryCarrier):
    """A server's end that tells when its owner waits for Hello."""

    def __init__(self) -> None:
        super().__init__("server")
        self.asked = asyncio.Event()

    async def read(self) -> bytes | None:
        self.asked.set()
        return await super().read()


def pair() -> tuple[MemoryCarrier, Waiting]:
    box, server = carrier_pair()[0], Waiting()
    box.other, server.other = server, box
    return box, server


def hello() -> bytes:
    return encode_hello(
        version="1",
        instance_id=b"i" * SESSION_ID_BYTES,
        node=tunnel_pb2.Node(),
        limits=Limits(),
        resume_session_id=b"",
        last_received=0,
    )


@pytest.mark.parametrize("taken", ["revoked", "rejoined"])
async def test_a_name_lost_before_hello_came_gets_no_session(tmp_path: Path, taken: str) -> None:
    store = AgentStore(tmp_path, pins_unknown=False)
    registry = Registry(store)
    acceptor = SessionAcceptor(
        registry, store, version="1", limits=Limits(), timing=Timing(), process_budget=Budget(total_bytes=64 * MIB)
    )
    await asyncio.to_thread(store.record, BOX, KEY)
    box, server = pair()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(acceptor.on_carrier(server, f"spiffe://longline/agent/{BOX}", KEY))
        await eventually(server.asked.is_set)
        if taken == "revoked":
            await asyncio.to_thread(store.revoke, BOX)
        else:
            await asyncio.to_thread(store.record, BOX, OTHER_KEY)
        await box.write(hello())
        answer = await box.read()
        assert answer is not None
        with pytest.raises(SessionRefused) as caught:
            decode_answer(answer)
    assert caught.value.code is Code.IDENTITY_REJECTED
    assert registry.session(BOX) is None
