"""The door: what is recorded of an open, whatever becomes of it; who is let through; what ends it from here."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.contextvars import get_contextvars

from cloud_server.frontends.forward import Forward
from cloud_server.opens.door import Door
from cloud_server.opens.live import Bytes, Change, LiveOpen, OpenView
from cloud_server.opens.policy import DoorPolicy
from cloud_server.opens.records import MAX_TARGET_CHARS
from cloud_server.opens.request import OpenRequest
from cloud_server.rights.engine import Decision
from cloud_server.routing.route import Route
from cloud_server.trust.authenticator import Authenticator
from cloud_server.trust.caller import UNLIMITED
from cloud_server.trust.standing import Standing
from tests.cloud_server.frontends.site import Site, site
from tests.support.doors import Doors, Nobody, Tokens, asking, who
from tests.support.policies import rights_of
from tests.support.waits import eventually
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.listener import Listener
from tunnel.core.wire.errors import GAVE_UP, Code, OpenRefused, StreamReset
from tunnel.core.wire.target import ServiceTarget, TcpTarget

ECHO, NEVER, RESETS, UNTOLD = 7, 3, 25, 9


def box(port: int) -> Route:
    return Route("box-7", TcpTarget("127.0.0.1", port))


class Client:
    """A forward, and a client of it."""

    def __init__(self, far: Site, listener: Listener, sock: socket.socket) -> None:
        self.far = far
        self.listener = listener
        self.sock = sock

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def records(self, last: str) -> list[dict[str, Any]]:
        """All of them, once there is one of this event."""
        await eventually(lambda: not self.listener.connections and self.far.records.of(last))
        return self.far.records


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    async with site() as far:
        caller, target = who().static_forward("127.0.0.1:0"), TcpTarget("127.0.0.1", port)
        one = Forward(far.doors.door, caller, "box-7", target, deadline_s=5.0)
        listener = Listener("forward", one.handle)
        await listener.listen_tcp("127.0.0.1:0")
        with socket.socket() as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", listener.ports[0]))
            try:
                yield Client(far, listener, sock)
            finally:
                await listener.aclose()


# Records


async def test_a_client_that_gives_up() -> None:
    async with client(NEVER) as made:
        await eventually(lambda: made.far.dialling == 1)
        made.reset()
        (record,) = await made.records("refused")
    assert (record["agent"], record["target"]) == ("box-7", "127.0.0.1:3")
    assert (record["reason"], record["text"]) == ("cancelled", GAVE_UP)


async def test_a_server_that_stops_before_the_answer() -> None:
    async with client(NEVER) as made:
        await eventually(lambda: made.far.dialling == 1)
        await made.listener.aclose()
        (record,) = await made.records("refused")
    assert (record["reason"], record["text"]) == ("shutting_down", "the server is stopping")


async def test_a_server_that_stops_in_the_middle() -> None:
    async with client(ECHO) as made:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(made.sock, b"12345")
        assert await loop.sock_recv(made.sock, 5) == b"12345"
        await made.listener.aclose()
        opened, ended = await made.records("end")
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(made.sock, 1)
    assert opened["event"] == "open"
    assert (ended["bytes_to_agent"], ended["bytes_from_agent"], ended["reason"]) == (5, 5, "shutting_down")


async def test_a_reset_of_the_target() -> None:
    async with client(RESETS) as made:
        await asyncio.get_running_loop().sock_sendall(made.sock, b"x")
        _, ended = await made.records("end")
    assert (ended["bytes_to_agent"], ended["bytes_from_agent"]) == (1, 0)
    assert (ended["reason"], ended["text"], ended["code"]) == ("connection_reset", "reset by the target", "LL4306")


class Recalling:
    """An agent's side that looks at the records when it is asked, and says no."""

    def __init__(self) -> None:
        self.doors = Doors(self)
        self.before: list[str] = []

    async def open(self, live: LiveOpen) -> Stream:
        self.before = [record["event"] for record in self.doors.records]
        raise OpenRefused("no", Code.REFUSED)


@pytest.mark.parametrize(("early_data", "before"), [(b"x", ["open"]), (b"", [])])
async def test_the_start_is_recorded_before_the_first_byte_moves(early_data: bytes, before: list[str]) -> None:
    far = Recalling()
    with pytest.raises(OpenRefused):
        await far.doors.door.open(asking(box(ECHO), early_data=early_data))
    assert far.before == before
    assert [record["event"] for record in far.doors.records] == [*before, "refused"]
    assert len({record["trace_id"] for record in far.doors.records}) == 1
    assert len(far.doors.live) == 0


async def test_the_start_is_recorded_before_the_answer_is_handed_out() -> None:
    async with site() as far:
        live = await far.doors.door.open(asking(box(21)))
        assert live is not None
        (record,) = far.records
        assert (record["event"], record["who"], record["proof"]) == ("open", "ann", "certificate:5f3a")
        assert (record["resolved"], record["rule"], record["class"]) == ("127.0.0.1:21", "builtin admin", "auto")
        assert get_contextvars()["trace_id"] == record["trace_id"] == live.request.trace_id
        live.opened().reset()


async def test_what_a_client_asked_for_is_cut_and_a_fault_tells_no_secret() -> None:
    class Broken:
        async def open(self, live: LiveOpen) -> Stream:
            raise RuntimeError("with a secret")

    doors = Doors(Broken())
    with pytest.raises(RuntimeError):
        await doors.door.open(asking(box(ECHO), asked="a" * 5000))
    with pytest.raises(OpenRefused):
        await doors.door.open(asking(asked="a" * 5000))
    broken, nowhere = doors.records
    assert (broken["reason"], nowhere["reason"]) == ("internal", "unknown_agent")
    assert nowhere["target"] == nowhere["asked"] == "a" * MAX_TARGET_CHARS
    assert "secret" not in str(broken)


async def test_nothing_is_opened_that_cannot_be_recorded_if_that_is_a_must() -> None:
    async with site() as far:
        far.records.fault = "the audit log cannot be written: No space left on device"
        with pytest.raises(OpenRefused, match="No space left") as caught:
            await far.doors.door.open(asking(box(ECHO)))
        assert far.asked == []
        assert caught.value.fault.code == "LL6014"


async def test_reads_of_the_server_itself_are_folded() -> None:
    async with site() as far:
        for _ in range(2):
            live = await far.doors.door.open(asking(box(ECHO), caller=who().server("fleet"), is_read=True))
            assert live is not None
            live.opened().reset()
        assert [record["event"] for record in far.records] == ["read", "read"]
        assert len({record["folded"] for record in far.records}) == 1


# Policy


class Only:
    """A policy that lets through to some agents."""

    def __init__(self, *agents: str) -> None:
        self._agents = agents

    def decide(self, request: OpenRequest, route: Route) -> Decision:
        return Decision(route.agent in self._agents, f"rule of {route.agent}", "ask the site's owner")

    def forbids(self, request: OpenRequest, route: Route, resolved: str) -> Decision | None:
        return None

    def weighs_addresses(self, request: OpenRequest) -> bool:
        return False


class Ways:
    """Two ways to everything."""

    def routes(self, authority: str) -> list[Route]:
        return [Route("box-8", TcpTarget("10.0.0.1", ECHO)), Route("box-7", TcpTarget("10.0.0.1", ECHO))]


async def test_a_refusal_names_its_rule_and_no_agent_is_asked() -> None:
    async with site() as far:
        doors = Doors(far, policy=Nobody())
        with pytest.raises(OpenRefused, match="not allowed by rule nobody") as caught:
            await doors.door.open(asking(box(ECHO)))
        assert caught.value.code is Code.NOT_ALLOWED
        (record,) = doors.records
        assert (record["event"], record["rule"], record["reason"]) == ("refused", "nobody", "not_allowed")
        assert far.asked == []


NO_LOOPBACK = """
[[role]]
name = "no-loopback"
[[role.deny]]
targets = ["127.0.0.0/8:*"]
[[binding]]
role = "no-loopback"
users = ["ann"]
[[binding]]
role = "admin"
users = ["ann"]
"""


NOTHING_ALLOWED = rights_of("")
LOOPBACK_DENIED = rights_of(NO_LOOPBACK)
OTHERS_DENIED = rights_of(NO_LOOPBACK.replace("127.0.0.0/8", "10.0.0.0/8"))


async def test_a_name_that_turns_out_to_be_a_denied_address_gets_not_a_byte() -> None:
    async with site() as far:
        named = Route("box-7", TcpTarget("db.example", ECHO))
        doors = Doors(far, policy=DoorPolicy(LOOPBACK_DENIED))
        with pytest.raises(OpenRefused, match=r"db\.example:7 is 127\.0\.0\.1:7 there, not allowed by rule no-l.*deny"):
            await doors.door.open(asking(named, early_data=b"secret"))
        assert [asked.early_data for asked in far.asked] == [b""]
        await eventually(lambda: doors.records.of("end"))
        assert doors.records.of("end")[0]["reason"] == "not_allowed"
        allowed = await Doors(far).door.open(asking(named, early_data=b"early"))
        assert allowed is not None
        assert [asked.early_data for asked in far.asked[1:]] == [b"early"]
        allowed.opened().reset()


async def test_a_service_that_turns_out_to_be_a_denied_address_gets_not_a_byte() -> None:
    async with site() as far:
        served = Route("box-7", ServiceTarget("echo"))
        doors = Doors(far, policy=DoorPolicy(LOOPBACK_DENIED))
        with pytest.raises(OpenRefused, match=r"echo is 127\.0\.0\.1:7 there, not allowed by rule no-l.*deny"):
            await doors.door.open(asking(served, early_data=b"secret"))
        assert [asked.early_data for asked in far.asked] == [b""]
        # Of a service inside the box there is no address, and so no deny of one.
        live = await doors.door.open(asking(Route("box-7", ServiceTarget("inside")), early_data=b"early"))
        assert live is not None
        assert await live.opened().read() == b"early"
        doors.door.standing.rules_changed()
        assert live.stream is not None
        assert live.stream.error is None
        live.opened().reset()


async def test_a_name_whose_address_the_box_does_not_tell_is_refused_where_a_deny_may_be_about_it() -> None:
    async with site() as far:
        untold = Route("box-7", TcpTarget("db.example", UNTOLD))
        doors = Doors(far, policy=DoorPolicy(OTHERS_DENIED))
        with pytest.raises(OpenRefused, match=r"db\.example:9 is somewhere there, not allowed by rule no-l") as caught:
            await doors.door.open(asking(untold, early_data=b"secret"))
        assert caught.value.code is Code.NOT_ALLOWED
        assert [asked.early_data for asked in far.asked] == [b""]
        live = await Doors(far).door.open(asking(untold))
        assert live is not None
        live.opened().reset()


async def test_first_bytes_that_had_to_wait_are_sent_behind_the_answer() -> None:
    async with site() as far:
        doors = Doors(far, policy=DoorPolicy(OTHERS_DENIED))
        live = await doors.door.open(asking(Route("box-7", TcpTarget("db.example", ECHO)), early_data=b"early"))
        assert live is not None
        assert await live.opened().read() == b"early"
        live.opened().reset()


async def test_only_the_routes_that_are_allowed_are_tried() -> None:
    async with site() as far:
        doors = Doors(far, Ways(), Only("box-7"))
        live = await doors.door.open(asking())
        assert live is not None
        assert (live.agent, live.view().rule) == ("box-7", "rule of box-7")
        live.opened().reset()
        with pytest.raises(OpenRefused, match="rule of box-7: ask the site's owner"):
            await Doors(far, Ways(), Only()).door.open(asking())


# The table


async def test_what_runs_is_in_the_table_until_its_end() -> None:
    async with site() as far:
        table, heard = far.doors.live, list[tuple[Change, OpenView]]()

        async def listen() -> None:
            async for change in table.subscribe():
                heard.append(change)

        listening = asyncio.get_running_loop().create_task(listen())
        await asyncio.sleep(0)
        live = await far.doors.door.open(asking(box(ECHO)))
        assert live is not None
        stream = live.opened()
        await stream.write(b"123")
        assert await stream.read() == b"123"
        (view,) = [one.view() for one in table]
        assert (view.who, view.kind, view.frontend, view.peer) == ("ann", "user", "connect", "192.0.2.1:5000")
        assert (view.agent, view.target, view.resolved) == ("box-7", "127.0.0.1:7", "127.0.0.1:7")
        assert (view.bytes_to_agent, view.bytes_from_agent) == (3, 3)
        assert table.bytes_by_frontend() == {"connect": Bytes(3, 3)}
        await stream.write_eof()
        await eventually(lambda: len(table) == 0)
        assert table.bytes_by_frontend() == {"connect": Bytes(3, 3)}, "counted once"
        await eventually(lambda: len(heard) == 2)
        assert [change for change, _ in heard] == [Change.OPENED, Change.ENDED]
        listening.cancel()
        await asyncio.wait([listening])


async def test_a_kill_ends_a_connection_on_both_ends_and_says_so() -> None:
    async with client(ECHO) as made:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(made.sock, b"1")
        assert await loop.sock_recv(made.sock, 1) == b"1"
        (live,) = made.far.doors.live
        seen = made.far.pair.agent._streams.values()
        (at_box,) = seen
        assert made.far.doors.live.kill(live.id, "killed by uid:0: wrong box")
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(made.sock, 1)
        _, ended = await made.records("end")
        await eventually(lambda: at_box.error)
        assert isinstance(at_box.error, StreamReset)
        assert (at_box.error.code, str(at_box.error)) == (Code.KILLED, "killed by uid:0: wrong box")
        assert (ended["reason"], ended["text"]) == ("killed", "killed by uid:0: wrong box")
        assert ended["code"] == "LL4311"
        assert not made.far.doors.live.kill(live.id, "again")


async def test_a_kill_while_it_is_being_opened_cancels_the_dial() -> None:
    async with client(NEVER) as made:
        await eventually(lambda: made.far.dialling == 1)
        (live,) = made.far.doors.live
        assert made.far.doors.live.dialling_by_frontend() == {"forward": 1}
        made.far.doors.live.kill(live.id, "killed by uid:0")
        (record,) = await made.records("refused")
        assert (record["reason"], record["text"]) == ("killed", "killed by uid:0")
        await eventually(lambda: made.far.given_up == 1)
        assert made.far.doors.live.dialling_by_frontend().get("forward", 0) == 0


async def test_rules_that_change_end_what_runs_and_what_is_being_opened_and_nothing_else() -> None:
    async with site() as far:
        door, standing = far.doors.door, far.doors.door.standing
        policy = far.doors.policy
        assert isinstance(policy, DoorPolicy)
        mine = await door.open(asking(box(ECHO)))
        other = await door.open(asking(box(ECHO), caller=who().static_forward("127.0.0.1:1")))
        assert mine is not None
        assert other is not None
        async with asyncio.TaskGroup() as tasks:
            opening = tasks.create_task(_refusal(far, NEVER))
            await eventually(lambda: far.dialling == 1)
            standing.rules_changed()
            await asyncio.sleep(0)
            assert len(standing) == 3, "they are as they were"
            policy.rights = NOTHING_ALLOWED
            standing.rules_changed()
        assert opening.result().code is Code.STANDING_LOST
        with pytest.raises(StreamReset, match="not allowed any more, by rule default deny"):
            await mine.opened().read()
        await other.opened().write(b"x")
        assert await other.opened().read() == b"x"
        assert len(standing) == 1
        other.opened().reset()
        await eventually(lambda: len(standing) == 0)
        (end,) = [record for record in far.records.of("end") if record["kind"] == "user"]
        assert (end["code"], end["reason"]) == ("LL4312", "standing_lost")


async def test_who_was_revoked_since_they_came_opens_nothing() -> None:
    async with site() as far:
        users = Tokens({"secret": "ann"}, UNLIMITED)
        known = Authenticator("longline", users)
        door = Door(far.doors.live, far.doors.routing, far.doors.policy, far.records, far.doors.local,
                    standing=Standing(known.again))  # fmt: skip
        caller = known.by_token("secret")
        assert caller is not None
        opened = await door.open(asking(box(ECHO), caller=caller))
        assert opened is not None
        opened.opened().reset()
        users.forget()
        with pytest.raises(OpenRefused) as caught:
            await door.open(asking(box(ECHO), caller=caller))
        assert (caught.value.code, caught.value.fault.code) == (Code.NOT_ALLOWED, "LL2040")
        (refused,) = far.records.of("refused")
        assert (refused["code"], refused["text"]) == ("LL2040", "the token that ann showed was revoked")
        assert len(far.doors.live) == 0


async def _refusal(far: Site, port: int) -> OpenRefused:
    with pytest.raises(OpenRefused) as caught:
        await far.doors.door.open(asking(box(port)))
    return caught.value
