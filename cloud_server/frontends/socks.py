"""Serves SOCKS5 (RFC 1928) with a name and password (RFC 1929), for programs that know no HTTP proxy.

Nothing of it is encrypted, not even the password: it is for loopback, and for networks that are trusted as that. The
password is a user's token. A name like `site-a.longline` means the target in that agent's network, as in a proxy URL.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import NamedTuple

from cloud_server.frontends.logins import RefusedLogins
from cloud_server.opens.door import Door
from cloud_server.opens.request import OpenRequest
from cloud_server.routing.names import agent_meant
from cloud_server.trust.authenticator import Authenticator, LoginRefused
from cloud_server.trust.caller import Caller
from tunnel.aio.sessions.carry import carry
from tunnel.aio.sockets.conn import NO_CERTIFICATE, Conn
from tunnel.core.wire.errors import Code, OpenRefused

FRONTEND = "socks"
HEAD_TIMEOUT_S = 10.0
VERSION = 5
_PASSWORD = 2
"""The one method of authentication that is served: name and password."""
_NO_METHOD = 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4

_GRANTED, _FAILED = 0, 1
_COMMAND_NOT_SERVED, _ADDRESS_NOT_SERVED = 7, 8
_REPLIES = {
    Code.NOT_ALLOWED: 2,
    Code.AGENT_AWAY: 3,
    Code.SHUTTING_DOWN: 3,
    Code.SESSION_LOST: 3,
    Code.UNKNOWN_AGENT: 4,
    Code.NO_SERVICE: 4,
    Code.AMBIGUOUS: 4,
    Code.NAME_NOT_FOUND: 4,
    Code.UNREACHABLE: 4,
    Code.REFUSED: 5,
    Code.DEADLINE: 6,
}
"""The replies of RFC 1928 section 6 by the code of a refusal; all else is a general failure. The reason itself has no
place there: the audit record has it.
"""


class _Ended(Exception):
    """The negotiation is over without a connection. `answer` is what to send to the client, empty for nothing."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__("no connection was asked for in a way that is served")
        self.answer = answer


class _Asked(NamedTuple):
    caller: Caller
    via: str
    authority: str


class SocksFrontend:
    """The front end that serves connections of SOCKS clients."""

    def __init__(self, door: Door, authenticator: Authenticator, logins: RefusedLogins, *, deadline_s: float) -> None:
        """Opens streams through `door`. `deadline_s` is the number of seconds within which every request is answered;
        it may be changed for requests that come later.
        """
        self._door = door
        self._authenticator = authenticator
        self._logins = logins
        self.deadline_s = deadline_s

    async def handle(self, conn: Conn) -> None:
        """Serves a connection to its end."""
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                asked = await self._negotiate(conn)
        except TimeoutError:
            return
        except _Ended as ended:
            await conn.write(ended.answer)
            return
        asking = OpenRequest(
            caller=asked.caller,
            frontend=FRONTEND,
            peer=conn.peer,
            asked=asked.authority,
            via=asked.via,
            deadline_s=self.deadline_s,
        )
        try:
            live = await self._door.open(asking, conn.closed)
        except OpenRefused as refused:
            await conn.write(_reply(_REPLIES.get(refused.code, _FAILED)))
            return
        if live is not None:
            await carry(live.opened(), conn, lambda: _grant(conn))

    # Internal

    async def _negotiate(self, conn: Conn) -> _Asked:
        version, methods = await _take(conn, 2)
        if version != VERSION:
            raise _Ended
        if _PASSWORD not in await _take(conn, methods):
            raise _Ended(bytes([VERSION, _NO_METHOD]))
        await conn.write(bytes([VERSION, _PASSWORD]))
        name, caller = await self._identify(conn)
        version, command, _, kind = await _take(conn, 4)
        if version != VERSION:
            raise _Ended
        host = await _host(conn, kind)
        port = int.from_bytes(await _take(conn, 2))
        if command != _CONNECT:
            raise _Ended(_reply(_COMMAND_NOT_SERVED))
        return _Asked(caller, agent_meant(name), f"{host}:{port}")

    async def _identify(self, conn: Conn) -> tuple[str, Caller]:
        """Returns the name that was given, and the user whose token the password is."""
        _version, length = await _take(conn, 2)
        name = (await _take(conn, length)).decode("utf-8", "replace")
        (length,) = await _take(conn, 1)
        password = (await _take(conn, length)).decode("utf-8", "replace")
        await self._authenticator.ready_for(password)
        try:
            caller = self._authenticator.by_either(NO_CERTIFICATE, password, conn.peer)
        except LoginRefused as refused:
            await self._logins.turn_away(FRONTEND, conn.peer, refused, conn.lost)
            raise _Ended(b"\x01\x01") from refused
        conn.known()
        await conn.write(b"\x01\x00")
        return name, caller


async def _grant(conn: Conn) -> bytes:
    await conn.write(_reply(_GRANTED))
    return b""


async def _host(conn: Conn, kind: int) -> str:
    if kind == _IPV4:
        return str(ipaddress.IPv4Address(await _take(conn, 4)))
    if kind == _IPV6:
        return f"[{ipaddress.IPv6Address(await _take(conn, 16))}]"
    if kind != _NAME:
        raise _Ended(_reply(_ADDRESS_NOT_SERVED))
    (length,) = await _take(conn, 1)
    return (await _take(conn, length)).decode("ascii", "replace")


async def _take(conn: Conn, count: int) -> bytes:
    """Reads exactly `count` bytes."""
    taken = b""
    while len(taken) < count:
        data = await conn.read(count - len(taken))
        if not data:
            raise _Ended
        taken += data
    return taken


def _reply(code: int) -> bytes:
    """Returns a reply with this code. The address of our end, which nobody needs, is left at 0.0.0.0:0."""
    return bytes([VERSION, code, 0, _IPV4]) + bytes(6)
