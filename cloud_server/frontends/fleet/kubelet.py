"""One HTTP request to an agent's kubelet API over a tunnel stream of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.stream_errors import from_stream_error
from cloud_server.opens.opener import Opener
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.http1 import ClientConnection, HeaderItems, Response
from tunnel.core.wire.errors import Code, StreamError
from tunnel.core.wire.faults import KUBELET_BROKEN, KUBELET_SILENT
from tunnel.core.wire.names import KUBELET
from tunnel.core.wire.spoken import spoken_s
from tunnel.core.wire.target import ServiceTarget
from tunnel.kubeapi.encoding import decode
from tunnel.kubeapi.status import ApiError

KUBELET_TARGET = ServiceTarget(KUBELET)
OPEN_DEADLINE_S = 10.0
HEAD_TIMEOUT_S = 30.0
"""A real kubelet may have to ask its container runtime before it answers an exec."""
PODS_TIMEOUT_S = 10.0
MAX_PODS_BYTES = 8 * 1024 * 1024
GIVEN_UP = "the request was given up"
FRONTEND = "fleet"


@dataclass(frozen=True, slots=True)
class KubeletCall:
    """A request that was answered with at least a head."""

    stream: Stream
    connection: ClientConnection
    response: Response


async def start(
    opener: Opener, agent: str, method: str, target: str, headers: HeaderItems, principal: str
) -> KubeletCall:
    """Send a request and wait for the head of its answer.

    Raises:
        ApiError: the agent could not be reached, or did not answer as a kubelet does.
    """
    try:
        stream = await opener.open(
            agent, KUBELET_TARGET, principal=principal, frontend=FRONTEND, deadline_s=OPEN_DEADLINE_S
        )
    except StreamError as error:
        raise from_stream_error(error, agent) from error
    connection = ClientConnection(stream)
    try:
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            response = await connection.request(method, target, [("host", "kubelet"), *headers])
    except TimeoutError:
        stream.reset(Code.DEADLINE, "no answer in time")
        raise ApiError(
            504,
            f"the kubelet of agent {agent} did not answer within {spoken_s(HEAD_TIMEOUT_S)}",
            cause=cause(KUBELET_SILENT),
        ) from None
    except StreamError as error:
        stream.reset(error.code, error.text)
        raise from_stream_error(error, agent) from error
    except BaseException:
        stream.reset(Code.CANCELLED, GIVEN_UP)
        raise
    return KubeletCall(stream, connection, response)


@asynccontextmanager
async def ending(call: KubeletCall) -> AsyncIterator[KubeletCall]:
    """End a call with the block: cleanly when the block ends so, by a reset when it raises or is cancelled."""
    try:
        yield call
    except BaseException:
        call.stream.reset(Code.CANCELLED, GIVEN_UP)
        raise
    await call.stream.aclose()


async def fetch_pods(opener: Opener, agent: str) -> object:
    """The decoded `/pods` of an agent's kubelet.

    Raises:
        ApiError: it could not be had.
    """
    try:
        async with asyncio.timeout(PODS_TIMEOUT_S):
            return await fetch_json(opener, agent, "/pods", MAX_PODS_BYTES)
    except TimeoutError:
        raise ApiError(
            504, f"the kubelet of agent {agent} did not list its pods in time", cause=cause(KUBELET_SILENT)
        ) from None


async def fetch_json(opener: Opener, agent: str, path: str, max_bytes: int) -> object:
    """A decoded document of an agent's kubelet; the caller must bound the time that it takes.

    Raises:
        ApiError: it could not be had.
    """
    try:
        async with ending(await start(opener, agent, "GET", path, (), FRONTEND)) as answer:
            body = await answer.connection.read_body(max_bytes)
            if answer.response.status != 200:
                raise ApiError(
                    502,
                    f"the kubelet of agent {agent} answered {path} with {answer.response.status}",
                    cause=cause(KUBELET_BROKEN),
                )
            return decode(body)
    except StreamError as error:
        raise from_stream_error(error, agent) from error
    except ValueError as error:
        raise ApiError(
            502, f"the kubelet of agent {agent} answered {path} with broken JSON", cause=cause(KUBELET_BROKEN)
        ) from error
