"""One HTTP request to an agent's kubelet API over a tunnel stream of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cloud_server.frontends.fleet.encoding import decode
from cloud_server.frontends.fleet.interfaces import Opener
from cloud_server.frontends.fleet.status import ApiError, from_stream_error
from tunnel.aio.duplex import Duplex
from tunnel.aio.http1 import ClientConnection, HeaderItems, Response
from tunnel.core.errors import Code, StreamError
from tunnel.core.target import ServiceTarget

KUBELET = ServiceTarget("kubelet")
OPEN_DEADLINE_S = 10.0
HEAD_TIMEOUT_S = 30.0
"""A real kubelet may have to ask its container runtime before it answers an exec."""
PODS_TIMEOUT_S = 10.0
MAX_PODS_BYTES = 8 * 1024 * 1024
FRONTEND = "fleet"


@dataclass(frozen=True, slots=True)
class KubeletCall:
    """A request that was answered with at least a head."""

    stream: Duplex
    connection: ClientConnection
    response: Response


@asynccontextmanager
async def call(
    opener: Opener, agent: str, method: str, target: str, headers: HeaderItems, principal: str
) -> AsyncIterator[KubeletCall]:
    """Send a request and wait for the head of its answer.

    The stream ends with the block: cleanly when the block does, by a reset when it raises or is cancelled.

    Raises:
        ApiError: the agent could not be reached, or did not answer as a kubelet does.
    """
    try:
        stream = await opener.open(agent, KUBELET, principal=principal, frontend=FRONTEND, deadline_s=OPEN_DEADLINE_S)
    except StreamError as error:
        raise from_stream_error(error, agent) from error
    connection = ClientConnection(stream)
    try:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                response = await connection.request(method, target, [("host", "kubelet"), *headers])
        except TimeoutError:
            raise ApiError(504, f"the kubelet of agent {agent} did not answer within {HEAD_TIMEOUT_S:g} s") from None
        except StreamError as error:
            raise from_stream_error(error, agent) from error
        yield KubeletCall(stream, connection, response)
    except BaseException:
        stream.reset(Code.CANCELLED, "the request was given up")
        raise
    await stream.aclose()


async def fetch_pods(opener: Opener, agent: str) -> object:
    """The decoded `/pods` of an agent's kubelet.

    Raises:
        ApiError: it could not be had.
    """
    try:
        async with asyncio.timeout(PODS_TIMEOUT_S):
            async with call(opener, agent, "GET", "/pods", (), FRONTEND) as answer:
                body = await answer.connection.read_body(MAX_PODS_BYTES)
                if answer.response.status != 200:
                    raise ApiError(502, f"the kubelet of agent {agent} answered /pods with {answer.response.status}")
                return decode(body)
    except TimeoutError:
        raise ApiError(504, f"the kubelet of agent {agent} did not list its pods in time") from None
    except StreamError as error:
        raise from_stream_error(error, agent) from error
    except ValueError as error:
        raise ApiError(502, f"the kubelet of agent {agent} answered /pods with broken JSON") from error
