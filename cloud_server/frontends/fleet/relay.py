"""Joins a client's upgraded connection and a stream to an agent, byte for byte, half-close and resets included."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tunnel.aio.duplex import Duplex
from tunnel.core.errors import StreamError

LINGER_S = 10.0
"""After the agent's end has come, how long a client may take to end its own side."""


@dataclass(slots=True)
class Relayed:
    """What went through."""

    bytes_in: int = 0
    """From the client to the agent."""
    bytes_out: int = 0
    ended: str = "finished"


async def relay(client: Duplex, agent: Duplex, early_in: bytes, early_out: bytes) -> Relayed:
    """Copy both ways until both directions ended; an error of one side resets the other.

    Args:
        client: the upgraded connection.
        agent: the stream.
        early_in: came from the client before this.
        early_out: came from the agent before this.
    """
    result = Relayed(len(early_in), len(early_out))
    loop = asyncio.get_running_loop()
    patience = asyncio.timeout(None)

    async def inward() -> None:
        try:
            async with patience:
                await agent.write(early_in)
                while data := await client.read():
                    result.bytes_in += len(data)
                    await agent.write(data)
                await agent.write_eof()
        except TimeoutError:
            result.ended = "the client did not end after the agent had"

    async def outward() -> None:
        await client.write(early_out)
        while data := await agent.read():
            result.bytes_out += len(data)
            await client.write(data)
        await client.write_eof()
        if not inward_task.done():
            patience.reschedule(loop.time() + LINGER_S)

    try:
        async with asyncio.TaskGroup() as tasks:
            inward_task = tasks.create_task(inward(), name="client to agent")
            tasks.create_task(outward(), name="agent to client")
    except* StreamError as group:
        error = group.exceptions[0]
        assert isinstance(error, StreamError)
        result.ended = str(error)
        client.reset(error.code, error.text)
        agent.reset(error.code, error.text)
    return result
