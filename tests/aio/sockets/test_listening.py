"""Listening sockets that were handed over: which are taken, which are closed, what the service manager is told."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from array import array
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tunnel.aio.process.handed import Handed, descriptor_name
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener, ListenFailed
from tunnel.aio.sockets.listening import ListeningSockets


async def echo(conn: Conn) -> None:
    while data := await conn.read():
        await conn.write(data)


async def connected(port: int, host: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(10):
        return await asyncio.open_connection(host, port)


async def ask(port: int, host: str = "127.0.0.1") -> bytes:
    reader, writer = await connected(port, host)
    writer.write(b"?")
    answer = await reader.read(1)
    writer.close()
    return answer


def handed(name: str, sock: socket.socket) -> Handed:
    return Handed(descriptor_name(name), os.dup(sock.fileno()))


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where a service manager listens that keeps descriptors."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("FDSTORE", "16")
        yield receiver


def told(receiver: socket.socket) -> list[str]:
    """What the manager heard; the descriptors are closed."""
    heard: list[str] = []
    while True:
        try:
            message, controls, _, _ = receiver.recvmsg(4096, 1024)
        except BlockingIOError:
            return heard
        descriptors = array("i")
        for _, _, data in controls:
            descriptors.frombytes(data)
        for descriptor in descriptors:
            os.close(descriptor)
        heard.append(f"{message.decode()} +{len(descriptors)}")


@pytest.fixture
async def before() -> AsyncIterator[socket.socket]:
    """A socket that listens already, as that of another process."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


async def test_a_socket_of_that_name_and_address_is_taken_with_who_waits_in_it(before: socket.socket) -> None:
    address, port = before.getsockname()
    reader, writer = await connected(port)
    writer.write(b"early")
    sockets = ListeningSockets([handed("front", before)])
    before.close()
    listener = Listener("front", echo, sockets=sockets)
    await listener.listen_tcp(f"{address}:{port}")
    assert await reader.readexactly(5) == b"early"
    writer.close()
    assert listener.ports == [port]
    assert [one.name for one in sockets.open_now()] == ["front"]
    await listener.aclose()
    assert sockets.open_now() == []


@pytest.mark.parametrize("name", ["front", "other"])
async def test_one_that_is_bound_elsewhere_or_named_otherwise_is_closed(before: socket.socket, name: str) -> None:
    sockets = ListeningSockets([handed(name, before)])
    port = before.getsockname()[1]
    before.close()
    listener = Listener("front", echo, sockets=sockets)
    await listener.listen_tcp("127.0.0.2:0" if name == "front" else "127.0.0.1:0")
    sockets.drop_unclaimed([listener.name])
    with pytest.raises(ConnectionRefusedError):
        await connected(port)
    assert await ask(listener.ports[0], "127.0.0.2" if name == "front" else "127.0.0.1") == b"?"
    await listener.aclose()


async def test_a_socket_that_is_handed_twice_is_taken_once(before: socket.socket) -> None:
    port = before.getsockname()[1]
    sockets = ListeningSockets([handed("front", before), handed("front", before)])
    before.close()
    with capture_logs() as logs:
        (taken,) = sockets.bind_tcp("front", [(socket.AF_INET, ("127.0.0.1", port))])
    assert logs == []
    taken.close()
    with pytest.raises(ConnectionRefusedError):
        await connected(port)


async def test_a_socket_that_does_not_listen_is_no_listener() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        sockets = ListeningSockets([handed("front", bound)])
        listener = Listener("front", echo, sockets=sockets)
        await listener.listen_tcp("127.0.0.1:0")
        assert listener.ports != [bound.getsockname()[1]]
        await listener.aclose()


async def test_what_was_handed_is_kept_when_another_address_of_the_listener_cannot_be_had(
    before: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = before.getsockname()[1]
    sockets = ListeningSockets([handed("front", before)])
    with socket.create_server(("127.0.0.2", port)) as taken:
        wanted = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, ("127.0.0.2", port))]
        with pytest.raises(OSError, match="in use"):
            sockets.bind_tcp("front", wanted)
        taken.close()
        first, second = sockets.bind_tcp("front", wanted)
    assert first.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    first.close()
    second.close()


async def test_nothing_is_accepted_before_the_other_process_lets_go(before: socket.socket) -> None:
    port = before.getsockname()[1]
    sockets = ListeningSockets([handed("front", before)], holding=True)
    listener = Listener("front", echo, sockets=sockets)
    await listener.listen_tcp(f"127.0.0.1:{port}")
    reader, writer = await connected(port)
    before.setblocking(False)
    async with asyncio.timeout(10):
        there, _ = await asyncio.get_running_loop().sock_accept(before)  # the other one serves it
    there.close()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    before.close()
    await sockets.release()
    assert await ask(port) == b"?"
    await listener.aclose()


async def test_a_listener_closed_while_it_holds_never_begins(before: socket.socket) -> None:
    sockets = ListeningSockets([handed("front", before)], holding=True)
    listener = Listener("front", echo, sockets=sockets)
    await listener.listen_tcp(f"127.0.0.1:{before.getsockname()[1]}")
    await listener.aclose()
    await sockets.release()
    assert listener.connections == 0


@pytest.mark.parametrize("handed_on", [False, True])
async def test_the_file_of_a_unix_socket_stays_for_who_has_the_socket(tmp_path: Path, handed_on: bool) -> None:
    path = tmp_path / "front.sock"
    first = ListeningSockets()
    listener = Listener("front", echo, sockets=first)
    await listener.listen_unix(path)
    inode = path.stat().st_ino
    passed = [Handed(one.name, os.dup(one.descriptor)) for one in first.open_now()]
    if handed_on:
        first.hand_over()
    await listener.aclose()
    assert path.exists() == handed_on
    second = Listener("front", echo, sockets=ListeningSockets(passed))
    await second.listen_unix(path)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert not handed_on or path.stat().st_ino == inode
    await second.aclose()
    assert not path.exists()


async def test_a_file_that_somebody_listens_behind_is_not_taken_from_him(tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        listener = Listener("front", echo)
        with pytest.raises(ListenFailed, match="another process listens there"):
            await listener.listen_unix(path)
        await listener.aclose()


async def test_a_service_manager_keeps_what_listens_and_nothing_else(
    before: socket.socket, manager: socket.socket
) -> None:
    sockets = ListeningSockets([handed("gone: away", before)], managed=True)
    listener = Listener("forward [::1]:80", echo, sockets=sockets)
    await listener.listen_tcp("127.0.0.1:0")
    assert told(manager) == ["FDSTORE=1\nFDNAME=forward [__1]_80 +1"]
    sockets.drop_unclaimed([listener.name])
    assert told(manager) == ["FDSTOREREMOVE=1\nFDNAME=gone_ away +0"]
    assert sockets.outlive
    listener.close()
    assert told(manager) == []
    await listener.aclose()


async def test_a_listener_closed_for_good_is_kept_by_nobody(manager: socket.socket, tmp_path: Path) -> None:
    listener = Listener("front", echo, sockets=ListeningSockets(managed=True))
    await listener.listen_unix(tmp_path / "front.sock")
    told(manager)
    listener.close(for_good=True)
    assert told(manager) == ["FDSTOREREMOVE=1\nFDNAME=front +0"]
    await listener.aclose()
    assert not (tmp_path / "front.sock").exists()


async def test_the_manager_is_told_nothing_while_another_process_is_the_main_one(
    before: socket.socket, manager: socket.socket
) -> None:
    sockets = ListeningSockets([handed("gone", before), handed("front", before)], managed=True, holding=True)
    listener = Listener("front", echo, sockets=sockets)
    await listener.listen_tcp(f"127.0.0.1:{before.getsockname()[1]}")
    sockets.drop_unclaimed([listener.name])
    assert told(manager) == []
    await sockets.release()
    assert told(manager) == ["FDSTOREREMOVE=1\nFDNAME=gone +0", "FDSTORE=1\nFDNAME=front +1"]
    await listener.aclose()


@pytest.mark.parametrize("limit", ["", "0", "many"])
async def test_a_manager_that_keeps_nothing_is_sent_nothing(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("FDSTORE", limit)
    listener = Listener("front", echo, sockets=ListeningSockets(managed=True))
    await listener.listen_tcp("127.0.0.1:0")
    await listener.aclose()
    assert told(manager) == []


async def test_sockets_that_nobody_takes_back_are_not_kept(manager: socket.socket) -> None:
    listener = Listener("front", echo)
    await listener.listen_tcp("127.0.0.1:0")
    await listener.aclose()
    assert told(manager) == []
