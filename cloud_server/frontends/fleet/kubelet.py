"""Sends an HTTP request to an agent's kubelet API over a tunnel stream of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import thread_time

from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.stream_errors import from_stream_error
from cloud_server.opens.door import Door, reason_of
from cloud_server.opens.live import LiveOpen
from cloud_server.opens.request import OpenRequest
from cloud_server.rights.ask import Verb
from cloud_server.routing.route import Route
from cloud_server.trust.caller import Caller
from tunnel.aio.http.http1 import ClientConnection, HeaderItems, Response
from tunnel.aio.process.turns import PIECE_S
from tunnel.core.wire.errors import Code, StreamError
from tunnel.core.wire.faults import KUBELET_BROKEN, KUBELET_SILENT
from tunnel.core.wire.names import KUBELET
from tunnel.core.wire.spoken import spoken_s
from tunnel.core.wire.target import ServiceTarget
from tunnel.kubeapi.listing import ListSplitter
from tunnel.kubeapi.status import ApiError

KUBELET_TARGET = ServiceTarget(KUBELET)
OPEN_DEADLINE_S = 10.0
HEAD_TIMEOUT_S = 30.0
"""Seconds to wait for the head of an answer. A real kubelet may have to ask its container runtime before it answers an
exec.
"""
SLICE_BYTES = 8 * 1024
"""How much of an answer is looked at in one go; a hostile one takes 3 ms, any other 0.5 ms."""
FAIR_CHUNK_BYTES = 512
MOST_CHUNKS = 1024
"""An answer may come in so many chunks, and in one more for each FAIR_CHUNK_BYTES of it: each costs 20 us, even one of
a single byte.
"""
REST = 2.0
"""Work on answers that took PIECE_S of a processor is followed by a pause of so many times as long: however many boxes
send however much, others have two thirds of the event loop.
"""
FRONTEND = "fleet"


@dataclass(frozen=True, slots=True)
class KubeletCall:
    """A request to a kubelet that was answered with at least a head."""

    live: LiveOpen
    connection: ClientConnection
    response: Response


def asking_kubelet(
    caller: Caller,
    agent: str,
    peer: str,
    about: Mapping[str, object],
    *,
    verb: Verb = Verb.GET,
    unit: str = "",
    command: Sequence[str] = (),
    ports: Sequence[int] = (),
    is_read: bool = False,
) -> OpenRequest:
    """Returns the request to the door for a stream to an agent's kubelet; see OpenRequest for the arguments."""
    return OpenRequest(
        caller=caller,
        frontend=FRONTEND,
        peer=peer,
        asked=f"kubelet of {agent}",
        verb=verb,
        unit=unit,
        command=tuple(command),
        ports=tuple(ports),
        route=Route(agent, KUBELET_TARGET),
        deadline_s=OPEN_DEADLINE_S,
        about=about,
        is_read=is_read,
    )


async def start(door: Door, asking: OpenRequest, method: str, target: str, headers: HeaderItems) -> KubeletCall:
    """Sends a request and waits for the head of its answer. The terms of the rule that allows it go along.

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
            response = await connection.request(method, target, [("host", "kubelet"), *headers, *live.terms.headers()])
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
    """Reads lists of agents' kubelets for what the server shows, on nobody's behalf."""

    def __init__(self, door: Door, caller: Caller) -> None:
        """Reads through `door`. `caller` stands for the server."""
        self._door = door
        self._caller = caller
        self._working = asyncio.Lock()
        self._worked_s = 0.0

    async def read_list(
        self, agent: str, path: str, splitter: ListSplitter, take: Callable[[bytes], None], max_bytes: int
    ) -> Mapping[str, object]:
        """Reads a list of an agent's kubelet, and returns it without its objects; see ListSplitter.

        The caller must bound the time that it takes.

        Args:
            agent: the agent.
            path: where its kubelet has the list.
            splitter: takes the list apart.
            take: is given each object as it comes.
            max_bytes: how long the whole list may be.

        Raises:
            ApiError: the list could not be had, or is longer than `max_bytes`.
        """
        asking = asking_kubelet(self._caller, agent, "", {"path": path}, is_read=True)
        try:
            async with ending(await start(self._door, asking, "GET", path, ())) as answer:
                if answer.response.status != 200:
                    raise _broken(f"the kubelet of agent {agent} answered {path} with {answer.response.status}")
                length = chunks = 0
                while chunk := await answer.connection.read_chunk():
                    length, chunks = length + len(chunk), chunks + 1
                    if length > max_bytes or chunks > MOST_CHUNKS + length // FAIR_CHUNK_BYTES:
                        raise _broken(f"the kubelet of agent {agent} answered {path} with too much, or in crumbs")
                    if chunks % 32 == 0:
                        await asyncio.sleep(0)  # what has come already is read without waiting
                    for at in range(0, len(chunk), SLICE_BYTES):
                        await self._work(splitter, chunk[at : at + SLICE_BYTES], take)
                return splitter.frame()
        except StreamError as error:
            raise from_stream_error(error, agent) from error
        except ValueError as error:
            raise _broken(f"the kubelet of agent {agent} answered {path} with broken JSON") from error

    # Internal

    async def _work(self, splitter: ListSplitter, data: bytes, take: Callable[[bytes], None]) -> None:
        async with self._working:  # of all answers that come at the same time one is worked on
            began_s = thread_time()
            for item in splitter.feed(data):
                take(item)
                if (worked_s := thread_time() - began_s) >= PIECE_S:
                    await asyncio.sleep(worked_s * REST)
                    began_s = thread_time()
            self._worked_s += thread_time() - began_s
            if self._worked_s >= PIECE_S:
                rest_s, self._worked_s = self._worked_s * REST, 0.0
                await asyncio.sleep(rest_s)


def _broken(text: str) -> ApiError:
    return ApiError(502, text, cause=cause(KUBELET_BROKEN))


def _reset(live: LiveOpen, error: BaseException) -> None:
    reason = reason_of(error)
    live.opened().reset(reason.code, str(reason))
