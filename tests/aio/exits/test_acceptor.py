"""What an end does with a stream that is asked for: dialled within the policy, served, refused; and what it tells who
keeps the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import pytest

from tests.support.acceptors import Record, kept
from tests.support.joined import Pair, joined
from tests.support.principals import ANN
from tests.support.waits import eventually
from tunnel.aio.exits import acceptor as acceptor_module
from tunnel.aio.exits.acceptor import Request, Service, StreamAcceptor
from tunnel.aio.exits.dialer import dial
from tunnel.aio.exits.policy import Policy
from tunnel.aio.process.clock import MONOTONIC
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.conn import Conn
from tunnel.core import events as ev
from tunnel.core.wire.errors import Code, OpenRefused, SessionLost, StreamReset
from tunnel.core.wire.faults import FAR_END_TOO_OLD, NOT_FORWARDED
from tunnel.core.wire.principal import Principal
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget, UnknownTarget
from tunnel.core.wire.target_rule import TargetRule

TRACE_ID = "5b1ce0ffee0ddba1"


@dataclass
class Echo:
    """A target on this box."""

    port: int = 0
    open: int = 0
    ended: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while data := await reader.read(65536):
                writer.write(data)
            self.ended = "eof"
        except ConnectionError as error:
            self.ended = type(error).__name__
        finally:
            writer.close()
            self.open -= 1


@pytest.fixture
async def target() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    async with server:
        yield echo
        await eventually(lambda: not echo.open)


@contextlib.asynccontextmanager
async def box(
    *allowed: str, services: Mapping[str, Service] | None = None, named: Mapping[str, TcpTarget] | None = None
) -> AsyncIterator[tuple[Pair, list[Record]]]:
    """A session to a box with these rules; yields what came of its streams too."""
    accepting = StreamAcceptor(Policy([TargetRule.parse(text) for text in allowed]), services or {}, named)
    records: list[Record] = []
    async with joined(kept(accepting, records)) as both:
        yield both, records


async def opened(both: Pair, target: Target) -> Stream:
    return await both.server.open(target, deadline_s=5, principal=ANN, trace_id=TRACE_ID)


async def refused(both: Pair, target: Target) -> OpenRefused:
    with pytest.raises(OpenRefused) as caught:
        await opened(both, target)
    return caught.value


# Connected


async def test_a_connection_is_carried_and_recorded(target: Echo) -> None:
    async with box(f"127.0.0.1:{target.port}") as (both, records):
        stream = await opened(both, TcpTarget("localhost", target.port))
        assert stream.resolved_address == f"127.0.0.1:{target.port}"
        await stream.write(b"ping!")
        assert await stream.read() == b"ping!"
        await stream.write_eof()
        assert await stream.read() == b""
        await eventually(lambda: records)
        assert target.ended == "eof"
    (record,) = records
    assert record == {
        "event": "stream", "user": "user:ann", "trace_id": TRACE_ID,
        "target": f"localhost:{target.port}", "resolved": f"127.0.0.1:{target.port}", "bytes_in": 5, "bytes_out": 5,
        "ended": "closed",
    }  # fmt: skip


async def test_a_reset_by_the_cloud_reaches_the_target_and_the_record(target: Echo) -> None:
    async with box(f"127.0.0.1:{target.port}") as (both, records):
        stream = await opened(both, TcpTarget("127.0.0.1", target.port))
        stream.reset(Code.CONNECTION_RESET, "the client's socket was reset")
        await eventually(lambda: records)
        await eventually(lambda: target.ended == "ConnectionResetError")
    assert records[0]["ended"] == "connection_reset: the client's socket was reset"


async def test_a_reset_by_the_target_reaches_the_cloud_and_the_record() -> None:
    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, box(f"127.0.0.1:{port}") as (both, records):
        stream = await opened(both, TcpTarget("127.0.0.1", port))
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code is Code.CONNECTION_RESET
        await eventually(lambda: records)
    assert records[0]["ended"].startswith("connection_reset: ")


async def test_the_end_of_the_session_resets_the_target_and_is_recorded(target: Echo) -> None:
    async with box(f"127.0.0.1:{target.port}") as (both, records):
        stream = await opened(both, TcpTarget("127.0.0.1", target.port))
        await stream.write(b"x")
        assert await stream.read() == b"x"
        both.agent.close(SessionLost("the link did not come back"))
        await eventually(lambda: records)
        await eventually(lambda: target.ended == "ConnectionResetError")
    (record,) = records
    assert record["ended"] == "session_lost: the link did not come back"
    assert record["bytes_in"] == record["bytes_out"] == 1


async def test_an_agent_that_stops_records_what_it_cuts(target: Echo) -> None:
    async with box(f"127.0.0.1:{target.port}") as (both, records):
        await opened(both, TcpTarget("127.0.0.1", target.port))
        await eventually(lambda: target.open)
    (record,) = records
    assert record["event"] == "stream"
    assert record["ended"].startswith("session_lost: ")


# Not connected


async def test_what_no_rule_allows_is_refused_and_never_dialled(target: Echo) -> None:
    async with box("127.0.0.1:1") as (both, records):
        refusal = await refused(both, TcpTarget("127.0.0.1", target.port))
        assert refusal.code is Code.NOT_ALLOWED
    assert records == [
        {
            "event": "refused",
            "user": "user:ann",
            "trace_id": TRACE_ID,
            "target": f"127.0.0.1:{target.port}",
            "code": "LL4102",
            "outcome": "not_allowed",
            "reason": str(refusal),
        }
    ]
    assert not target.ended


async def test_the_policy_is_asked_about_the_address_and_not_the_name(target: Echo) -> None:
    """A name that is allowed does not open this box's own loopback, where it happens to point."""
    async with box(f"db.example.com:{target.port}", f"10.0.0.0/8:{target.port}") as (both, records):
        refusal = await refused(both, TcpTarget("localhost", target.port))
        assert refusal.code is Code.NOT_ALLOWED
    assert [record["outcome"] for record in records] == ["not_allowed"]


async def test_a_target_that_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with box(f"127.0.0.1:{port}") as (both, records):
        refusal = await refused(both, TcpTarget("127.0.0.1", port))
        assert refusal.code is Code.REFUSED
    assert [(record["outcome"], record["reason"]) for record in records] == [("refused", str(refusal))]


async def test_a_service_that_the_box_does_not_offer() -> None:
    async with box("0.0.0.0/0:*") as (both, records):
        refusal = await refused(both, ServiceTarget("kubelet"))
        assert refusal.code is Code.NO_SERVICE
        assert "offers no kubelet: see [host]" in str(refusal)
    assert [record["target"] for record in records] == ["kubelet"]


@pytest.mark.parametrize(
    ("opened", "code", "says"),
    [
        (ev.StreamOpened(1, UnknownTarget(), 9.0, ANN, TRACE_ID), Code.NO_SERVICE, "too old"),
        (ev.StreamOpened(1, TcpTarget("127.0.0.1", 7), 9.0, ANN, TRACE_ID, "box-8"), Code.UNREACHABLE, "to box-8"),
    ],
)
async def test_what_this_end_cannot_do_is_never_taken_for_something_else(
    opened: ev.StreamOpened, code: Code, says: str
) -> None:
    anything = StreamAcceptor(Policy([TargetRule.parse("0.0.0.0/0:*")]), {}, {"unknown": TcpTarget("127.0.0.1", 7)})
    records: list[Record] = []
    with pytest.raises(OpenRefused, match=says) as caught:
        await kept(anything, records)(IncomingStream(_Asker(), opened))
    assert caught.value.code is code
    (record,) = records
    assert (record["user"], record["trace_id"], record["outcome"]) == ("user:ann", TRACE_ID, code.label)
    assert caught.value.fault in (FAR_END_TOO_OLD, NOT_FORWARDED)


class _Asker:
    """A session that is told no answer."""

    now = MONOTONIC

    def accept(self, stream_id: int, resolved_address: str) -> Stream:
        raise AssertionError("nothing is to be connected")

    def refuse(self, stream_id: int, code: Code, text: str) -> None:
        raise AssertionError("the acceptor raises")

    def reset(self, stream_id: int, code: Code, text: str) -> None:
        raise AssertionError("nothing was accepted")

    def kick(self) -> None:
        raise AssertionError("nothing is to be sent")


async def test_a_dial_that_nobody_waits_for_is_cancelled_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    dialling, cancelled = asyncio.Event(), asyncio.Event()

    async def never(*_arguments: object) -> tuple[Conn, str]:
        dialling.set()
        answer: asyncio.Future[tuple[Conn, str]] = asyncio.get_running_loop().create_future()
        try:
            return await answer
        except asyncio.CancelledError:
            cancelled.set()
            raise

    monkeypatch.setattr(acceptor_module, "dial", never)
    async with box("10.0.0.1:80") as (both, records), asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(opened(both, TcpTarget("10.0.0.1", 80)))
        await dialling.wait()
        opening.cancel()
        await cancelled.wait()
        await eventually(lambda: records)
        assert both.agent.core.stream_count == 0
    (record,) = records
    assert (record["event"], record["outcome"], record["user"]) == ("refused", "cancelled", "user:ann")


async def test_a_connection_that_comes_when_nobody_waits_any_more_is_closed(
    target: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, gone = asyncio.Event(), asyncio.Event()

    async def slow(where: TcpTarget, policy: Policy, deadline_s: float, principal: Principal) -> tuple[Conn, str]:
        made = await dial(where, policy, deadline_s, principal)
        connected.set()
        # The news of the opener's end and the connection come in one turn of the loop.
        while True:
            try:
                await gone.wait()
                return made
            except asyncio.CancelledError:
                continue

    monkeypatch.setattr(acceptor_module, "dial", slow)
    async with box(f"127.0.0.1:{target.port}") as (both, records), asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(opened(both, TcpTarget("127.0.0.1", target.port)))
        await connected.wait()
        opening.cancel()
        await eventually(lambda: not both.agent.core.stream_count)
        gone.set()
        await eventually(lambda: records)
        await eventually(lambda: target.ended == "ConnectionResetError")
    assert [(record["event"], record["outcome"]) for record in records] == [("refused", "cancelled")]


# Services


async def test_a_service_gets_the_stream_and_its_use_is_recorded() -> None:
    async def shout(request: Request) -> None:
        stream = request.accept("the box itself")
        while data := await stream.read():
            await stream.write(data.upper() + str(request.principal).encode())
        await stream.aclose()

    async with box(services={"shout": shout}) as (both, records):
        stream = await opened(both, ServiceTarget("shout"))
        await stream.write(b"hello ")
        assert await stream.read() == b"HELLO user:ann"
        await stream.aclose()
        await eventually(lambda: records)
    (record,) = records
    assert (record["event"], record["target"], record["resolved"]) == ("stream", "shout", "the box itself")
    assert (record["bytes_in"], record["bytes_out"], record["ended"]) == (6, 14, "closed")


async def test_a_service_that_fails_before_it_accepts() -> None:
    async def broken(request: Request) -> None:
        raise ValueError("a secret of the box")

    async with box(services={"broken": broken}) as (both, records):
        refusal = await refused(both, ServiceTarget("broken"))
        assert refusal.code is Code.INTERNAL
        assert "secret" not in str(refusal)
        await eventually(lambda: records)
    assert [(record["event"], record["outcome"]) for record in records] == [("refused", "internal")]


async def test_a_service_that_fails_later_resets_its_stream() -> None:
    async def breaking(request: Request) -> None:
        await request.accept().read()
        raise ValueError("a secret of the box")

    async with box(services={"breaking": breaking}) as (both, records):
        stream = await opened(both, ServiceTarget("breaking"))
        await stream.write(b"x")
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code is Code.INTERNAL
        assert "secret" not in str(caught.value)
        await eventually(lambda: records)
    (record,) = records
    assert record["event"] == "stream"
    assert record["ended"].startswith("internal: ")
    assert "secret" not in record["ended"]


async def test_a_connection_of_a_service_that_nobody_waits_for_is_closed(target: Echo) -> None:
    connected, gone = asyncio.Event(), asyncio.Event()

    async def real_kubelet(request: Request) -> None:
        _, conn = await asyncio.get_running_loop().create_connection(Conn, "127.0.0.1", target.port)
        connected.set()
        with contextlib.suppress(asyncio.CancelledError):
            await gone.wait()
        await request.join(conn, "127.0.0.1")

    async with box(services={"kubelet": real_kubelet}) as (both, records), asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(opened(both, ServiceTarget("kubelet")))
        await connected.wait()
        opening.cancel()
        await eventually(lambda: target.ended == "ConnectionResetError")
        await eventually(lambda: records)
    assert [(record["event"], record["outcome"]) for record in records] == [("refused", "cancelled")]


async def test_a_named_target_is_under_the_policy_too(target: Echo) -> None:
    named = {"printer": TcpTarget("127.0.0.1", target.port)}
    async with box(named=named) as (both, records):
        assert (await refused(both, ServiceTarget("printer"))).code is Code.NOT_ALLOWED
    async with box(f"127.0.0.1:{target.port}", named=named) as (both, records):
        stream = await opened(both, ServiceTarget("printer"))
        await stream.aclose()
        await eventually(lambda: records)
    assert [(record["event"], record["target"]) for record in records] == [("stream", "printer")]
