"""Closing a unix socket so that its peer learns of it, if it can be told at all; the splice's tests see it in use."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.support.waits import eventually
from tunnel.aio.sockets import last_word
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.last_word import LastWord, is_unix


async def made() -> tuple[Conn, socket.socket]:
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.setblocking(False)
    _, conn = await asyncio.get_running_loop().create_unix_connection(Conn, sock=ours)
    return conn, peer


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_what_the_peer_says_next_resets_it_behind_all_that_it_was_sent() -> None:
    conn, peer = await made()
    with peer:
        await conn.write(b"half of an ans")
        LastWord(conn.transport)
        peer.send(b"x")
        await conn.lost()
        await asyncio.sleep(0)  # the socket itself is closed behind that
        assert peer.recv(100) == b"half of an ans"
        with pytest.raises(ConnectionResetError):
            peer.recv(100)


async def test_a_silent_peer_gets_an_end_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_word, "WAIT_S", 0.05)
    conn, peer = await made()
    with peer:
        LastWord(conn.transport)
        await conn.lost()
        await asyncio.sleep(0)
        assert peer.recv(100) == b""


async def test_one_that_is_gone_meanwhile_leaves_nothing() -> None:
    first, other = await made()  # whatever the event loop itself opens at the first one
    other.close()
    first.reset()
    await first.lost()
    await asyncio.sleep(0)
    before = open_files()
    conn, peer = await made()
    waiting = LastWord(conn.transport)
    peer.close()
    waiting.cancel()
    conn.reset()
    await conn.lost()
    await eventually(lambda: open_files() == before)


async def test_which_sockets_are_unix_sockets() -> None:
    conn, peer = await made()
    with peer, socket.create_server(("127.0.0.1", 0)) as listener:
        _, tcp = await asyncio.get_running_loop().create_connection(Conn, *listener.getsockname())
        assert (is_unix(conn.transport), is_unix(tcp.transport)) == (True, False)
        for one in (conn, tcp):
            one.reset()
            await one.lost()
        await asyncio.sleep(0)
