"""Clients that nobody knows: they hold connections after one answer, and they guess. Who is known goes on as ever."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import struct
import time
import tomllib
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import psutil
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.descriptors import as_many_descriptors_as_allowed
from tests.support.ports import free_ports
from tests.support.tunnel import wait_until
from tests.support.waits import scaled_s, sooner_than

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
POOL, PER_ADDRESS = 200, 50
ADDRESSES, EACH = 20, 45
"""900 connections in all, none of its address too many."""
FILES = 700
"""How many descriptors the server may have: a pool that takes from everybody would be at its end."""
ASK = "GET /api/v1/nodes HTTP/1.1\r\nHost: x\r\n{}\r\n"
GUESSERS = 30
GUESS_S = 4.0


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Room for our ends of all connections."""
    with as_many_descriptors_as_allowed():
        yield


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    with cluster() as one:
        socks, metrics = free_ports(2)
        one.configure(
            {
                "limits": {"strangers": POOL, "strangers_per_address": PER_ADDRESS},
                "socks": {"listen": f"127.0.0.1:{socks}"},
                "metrics": {"listen": f"127.0.0.1:{metrics}"},
            }
        )
        one.kubeconfig("dialer")
        one.start()
        yield one


@pytest.fixture(scope="module")
def nobody(made: Cluster) -> ssl.SSLContext:
    """What clients without a certificate connect with."""
    return made.operator_tls(certificate=False)


def port_of(made: Cluster, section: str) -> int:
    return int(tomllib.loads(made.config.read_text())[section]["listen"].rpartition(":")[2])


def figures(made: Cluster) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port_of(made, 'metrics')}/metrics") as page:
        lines = [line for line in page.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: str = "") -> int:
    """Ask for the nodes; returns the status."""
    writer.write(ASK.format(headers).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [int(line[15:]) for line in head.decode().split("\r\n") if line.lower().startswith("content-length:")]
    await reader.readexactly(length)
    return int(head[9:12])


@contextlib.asynccontextmanager
async def connected(
    port: int, tls: ssl.SSLContext | None, address: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, local_addr=(address, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_one_401_and_then_hundreds_of_idle_connections(made: Cluster, nobody: ssl.SSLContext) -> None:
    server = psutil.Process(made.server.pid)
    user = made.operator_tls()
    before = server.num_fds()
    async with contextlib.AsyncExitStack() as stack:
        known = await stack.enter_async_context(connected(made.fleet_port, user))
        assert await ask(*known) == 200
        server.rlimit(psutil.RLIMIT_NOFILE, (FILES, server.rlimit(psutil.RLIMIT_NOFILE)[1]))
        cut = 0
        for number in range(ADDRESSES * EACH):
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                address = f"127.0.1.{number % ADDRESSES + 1}"
                one = await stack.enter_async_context(connected(made.fleet_port, nobody, address))
                assert await ask(*one) == 401
                continue
            cut += 1
        assert cut == 0, "whoever comes is answered: those before make room"
        assert server.num_fds() < before + POOL + 20
        for address in ("127.0.0.1", "127.0.1.1", "127.0.1.7"):
            with sooner_than(5.0, "an answer beside them"):
                async with connected(made.fleet_port, user, address) as another:
                    assert await ask(*another) == 200
        assert await ask(*known) == 200, "a connection of before goes on"
        assert figures(made)['longline_strangers{listener="fleet"}'] <= POOL
        wait_until(lambda: server.num_fds() < before + 20, "the last ones to be cut after 10 s", 15)
        assert await ask(*known) == 200


async def fleet_guess(made: Cluster, nobody: ssl.SSLContext, token: str) -> bool:
    async with connected(made.fleet_port, nobody) as one:
        return await ask(*one, f"Authorization: Bearer {token}\r\n") != 401  # 403 for one without rights


async def connect_guess(made: Cluster, nobody: ssl.SSLContext, token: str) -> bool:
    shown = base64.b64encode(f"x:{token}".encode()).decode()
    async with connected(made.connect_port, nobody) as (reader, writer):
        writer.write(f"CONNECT nobody:1 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {shown}\r\n\r\n".encode())
        return b" 407 " not in await reader.readline()


async def socks_guess(made: Cluster, _nobody: ssl.SSLContext, token: str) -> bool:
    async with connected(port_of(made, "socks"), None) as (reader, writer):
        writer.write(b"\x05\x01\x02")
        await reader.readexactly(2)
        writer.write(struct.pack("BB", 1, 1) + b"x" + struct.pack("B", len(token)) + token.encode())
        return await reader.readexactly(2) == b"\x01\x00"


GUESSES: dict[str, Callable[[Cluster, ssl.SSLContext, str], Awaitable[bool]]] = {
    "fleet": fleet_guess,
    "connect": connect_guess,
    "socks": socks_guess,
}


@pytest.mark.parametrize("front_end", GUESSES)
async def test_guesses_are_slow_counted_and_told_once_and_the_right_user_comes_in(
    made: Cluster, nobody: ssl.SSLContext, front_end: str
) -> None:
    guess, good = GUESSES[front_end], made.user_token(f"{front_end}-user")
    seen, name = len(made.server.log_text()), f'longline_logins_refused_total{{frontend="{front_end}"}}'
    before = figures(made).get(name, 0.0)
    answered = 0
    end_s = time.monotonic() + GUESS_S

    async def guesser(number: int) -> None:
        nonlocal answered
        while time.monotonic() < end_s:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                assert not await guess(made, nobody, f"guess-{number}-{answered}")
                answered += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(GUESSERS):
            tasks.create_task(guesser(number))
        await asyncio.sleep(GUESS_S / 2)
        for _ in range(3):
            with sooner_than(4.0, "the right user's way in from the same address"):
                assert await guess(made, nobody, good)
    # Ten at once and one a second; and each guesser has one that is answered in the end.
    assert answered <= 10 + scaled_s(GUESS_S + 5) + GUESSERS
    assert figures(made)[name] - before >= answered
    lines = [json.loads(line) for line in made.server.log_text()[seen:].splitlines() if '"logins refused"' in line]
    assert len(lines) <= 1, "once a minute for the address, whatever the front end"
