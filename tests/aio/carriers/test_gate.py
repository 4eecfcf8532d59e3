"""Connections that make no call, against a real server."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import waits
from tests.support.carriers import AGENT, Cloud, cloud, echo
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.carriers.waiting import ABOVE_LIMIT, TOO_LATE

pytestmark = pytest.mark.may_block("strangers of this process connect")
HELLO = b"\x16"
"""The first byte of a TLS handshake."""


def knock(server: Cloud, first: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.server.ports[0]), 5)
    sock.sendall(first)
    return sock


def is_cut(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def test_one_that_says_nothing_does_not_get_in() -> None:
    async with cloud(echo) as server:
        before = len(list(Path("/proc/self/fd").iterdir()))
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(knock(server))
            carrier = await server.dial()
            await carrier.write(b"hello")
            assert await carrier.read() == b"hello"
            # Ours of 20, and both ends of the carrier's connection.
            assert len(list(Path("/proc/self/fd").iterdir())) <= before + 20 + 6
            carrier.close()


async def test_only_so_many_may_be_without_a_call() -> None:
    async with cloud(echo, limits=CarrierLimits(waiting=8, waiting_per_address=5)) as server:
        carrier = await server.dial()
        await carrier.write(b"hello")
        assert await carrier.read() == b"hello"
        with ExitStack() as stack:
            strangers = [stack.enter_context(knock(server, HELLO)) for _ in range(30)]
            await waits.eventually(lambda: sum(map(is_cut, strangers)) == 25)
            # Counted when all of them are cut, which a thread does.
            await waits.eventually(lambda: server.server.cut == {ABOVE_LIMIT: 25})
            (use,) = [one for one in server.server.use_of_limits() if one.name == "tunnel_waiting"]
            assert (use.limit, use.used) == (8, 5)
            await carrier.write(b"still here")
            assert await carrier.read() == b"still here"
        carrier.close()


async def test_a_good_certificate_without_a_call_is_not_enough(tmp_path: Path) -> None:
    async with cloud(echo, limits=CarrierLimits(call_timeout_s=1.0, request_timeout_s=1.0)) as server:
        carrier = await server.dial()
        await carrier.write(b"hello")
        assert await carrier.read() == b"hello"
        context = ssl.create_default_context(cadata=server.authority.pem.decode())
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(*server.authority.issue(uris=[AGENT]).write(tmp_path, "box"))
        idle = await asyncio.to_thread(context.wrap_socket, knock(server), server_hostname="127.0.0.1")
        with idle:
            await waits.eventually(lambda: server.server.cut.get(TOO_LATE, 0) == 1)
        await carrier.write(b"still here")
        assert await carrier.read() == b"still here"
        carrier.close()
