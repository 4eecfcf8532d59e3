"""tunnel.aio.carriers.grpc_runtime: gRPC's thread does not wait for the event loop."""

from __future__ import annotations

import asyncio
import socket
import time

import grpc.aio
import pytest

from tunnel.aio.carriers.grpc_runtime import keep_grpc_running

CALLS = 1000
"""Several times as many as the pair of sockets has room for bytes, 278."""


async def test_what_is_done_while_the_loop_is_busy_takes_few_turns() -> None:
    """A byte for each, of which a turn takes one, would be as many turns as the pair has no room for."""
    keep_grpc_running()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        await _fail_often(f"127.0.0.1:{nobody.getsockname()[1]}")


async def _fail_often(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/nobody/listens")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"")  # from now on others fail by themselves, in gRPC's thread
        calls = [call(b"") for _ in range(CALLS)]
        await asyncio.sleep(0)
        time.sleep(0.5)  # the loop is busy
        turns = 0
        while not all(one.done() for one in calls):
            await asyncio.sleep(0)
            turns += 1
        assert turns < CALLS / 4
        assert {await one.code() for one in calls} == {grpc.StatusCode.UNAVAILABLE}


def test_no_other_pair_of_sockets_is_concerned() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert theirs.getblocking()
        assert type(ours) is socket.socket
