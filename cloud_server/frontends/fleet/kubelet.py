"""Sends an HTTP request to an agent's kubelet API over a tunnel stream of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.stream_errors import from_stream_error
from cloud_server.opens.door import Door, reason_of
from cloud_server.opens.live import LiveOpen
from cloud_server.opens.request import OpenRequest
from cloud_server.routing.route import Route
from cloud_server.trust.caller import Caller
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
"""Seconds to wait for the head of an answer. A real kubelet may have to ask its container runtime before it answers an
exec.
"""
PODS_TIMEOUT_S = 10.0
MAX_PODS_BYTES = 8 * 1024 * 1024
FRONTEND = "fleet"


@dataclass(frozen=True, slots=True)
class KubeletCall:
    """A request to a kubelet that was answered with at least a head."""

    live: LiveOpen
    connection: ClientConnection
    response: Response


def asking_kubelet(
    caller: Caller, agent: str, peer: str, about: Mapping[str, object], *, is_read: bool = False
) -> OpenRequest:
    """Returns the request to the door for a stream to an agent's kubelet; see OpenRequest for the arguments."""
    return OpenRequest(
        caller=caller,
        frontend=FRONTEND,
        peer=peer,
        asked=f"kubelet of {agent}",
        route=Route(agent, KUBELET_TARGET),
        deadline_s=OPEN_DEADLINE_S,
        about=about,
        is_read=is_read,
    )


async def start(door: Door, asking: OpenRequest, method: str, target: str, headers: HeaderItems) -> KubeletCall:
    """Sends a request and waits for the head of its answer, for at most `HEAD_TIMEOUT_S`.

    Raises:
        ApiError: the agent could not be reached, or did not answer as a kubelet does.
    """
    agent = asking.route.agent if asking.route is not None else ""
    try:
        live = await door.open(asking)
    except StreamError as error:
        raise from_stream_error(error, agent) from error
    assert live is not None  # there is no client that could go
    stream = live.opened()
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
    except BaseException as error:
        _reset(live, error)
        raise
    return KubeletCall(live, connection, response)


@asynccontextmanager
async def ending(call: KubeletCall) -> AsyncIterator[KubeletCall]:
    """Ends a call with the block: cleanly when the block ends so or raises `ApiError`, by a reset when it raises
    anything else or is cancelled.
    """
    try:
        yield call
    except ApiError as error:
        call.live.outcome["refused"] = error.message
        await call.live.opened().aclose()
        raise
    except BaseException as error:
        _reset(call.live, error)
        raise
    await call.live.opened().aclose()


class KubeletReader:
    """Reads documents of agents' kubelets for what the server shows, on nobody's behalf."""

    def __init__(self, door: Door, caller: Caller) -> None:
        """Reads through `door`. `caller` stands for the server."""
        self._door = door
        self._caller = caller

    async def pods(self, agent: str) -> object:
        """Returns the decoded `/pods` of an agent's kubelet. Waits at most `PODS_TIMEOUT_S`.

        Raises:
            ApiError: it could not be had.
        """
        try:
            async with asyncio.timeout(PODS_TIMEOUT_S):
                return await self.document(agent, "/pods", MAX_PODS_BYTES)
        except TimeoutError:
            raise ApiError(
                504, f"the kubelet of agent {agent} did not list its pods in time", cause=cause(KUBELET_SILENT)
            ) from None

    async def document(self, agent: str, path: str, max_bytes: int) -> object:
        """Returns a decoded document of an agent's kubelet. The caller must bound the time that it takes.

        Raises:
            ApiError: the document could not be had, or is longer than `max_bytes`.
        """
        asking = asking_kubelet(self._caller, agent, "", {"path": path}, is_read=True)
        try:
            async with ending(await start(self._door, asking, "GET", path, ())) as answer:
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


def _reset(live: LiveOpen, error: BaseException) -> None:
    reason = reason_of(error)
    live.opened().reset(reason.code, str(reason))
