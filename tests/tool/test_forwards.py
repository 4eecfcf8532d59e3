"""Forwarded connections: what -L means, half-close, resets that stay resets, and servers that refuse."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.connect_server import BLOB, ESTABLISHED, Peer, both_ways, proxy
from tests.support.pki import Authority
from tests.support.waits import scaled_s
from tunnel.tool.connect import ConnectFailed, Joined, Patience, Proxy, ask, dial_tls, dial_unix
from tunnel.tool.forwards import MAX_CONNECTIONS, Forward, Forwards, ForwardUnusable, parse_forward
from tunnel.tool.kubeconfig import load_access


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@contextmanager
def forwarded(
    tmp_path: Path, authority: Authority, way: str, script: Callable[[Peer], object]
) -> Iterator[tuple[socket.socket, list[str], threading.Thread]]:
    """A client of a forward to a server that does what a script says; what was told to the person."""
    told: list[str] = []
    with proxy(tmp_path, way, script, authority) as made:

        def reach(target: str) -> tuple[Proxy, Joined]:
            patience = Patience(scaled_s(10))
            if way == "unix":
                server = dial_unix(tmp_path / "connect.sock", patience)
            else:
                server = dial_tls(made.via, load_access([tmp_path / "me.kubeconfig"]).tls(), patience, "none")
            return server, ask(server, target, patience)

        forwards = Forwards(reach, told.append)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname(), scaled_s(10))
            accepted, _ = listener.accept()
        thread = threading.Thread(target=forwards._handle, args=(accepted, "box-7:22"))
        thread.start()
        try:
            yield client, told, thread
        finally:
            client.close()
            made.over.set()
            thread.join(scaled_s(10))
            assert not thread.is_alive()


def read_all(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := sock.recv(65536):
        received += data
    return bytes(received)


def say(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@both_ways
def test_bytes_and_half_close_both_ways(tmp_path: Path, authority: Authority, way: str) -> None:
    """The server answers when it has seen our end, and its answer is whole though ours has ended."""

    def late(peer: Peer) -> None:
        assert peer.head().startswith(b"CONNECT box-7:22 ")
        peer.sock.sendall(ESTABLISHED + b"first")
        received = peer.read_all()
        peer.sock.sendall(received + BLOB)
        peer.finish()
        peer.over.wait()

    with forwarded(tmp_path, authority, way, late) as (client, told, _):
        assert client.recv(5) == b"first"
        threading.Thread(target=say, args=(client, BLOB)).start()
        assert digest(read_all(client)) == digest(BLOB + BLOB)
        assert told == []


@both_ways
def test_the_servers_end_leaves_our_direction_open(tmp_path: Path, authority: Authority, way: str) -> None:
    heard: list[str] = []

    def ends_first(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(ESTABLISHED + b"bye")
        peer.finish()
        heard.append(digest(peer.read_all()))

    with forwarded(tmp_path, authority, way, ends_first) as (client, _, thread):
        assert read_all(client) == b"bye"
        client.sendall(BLOB)
        client.shutdown(socket.SHUT_WR)
        thread.join(scaled_s(10))
        assert not thread.is_alive()
    assert heard == [digest(BLOB)]


@both_ways
def test_a_cut_is_no_end(tmp_path: Path, authority: Authority, way: str) -> None:
    def cut(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(ESTABLISHED + b"half")
        peer.sock.recv(1)
        peer.reset()

    with forwarded(tmp_path, authority, way, cut) as (client, told, thread):
        assert client.recv(4) == b"half"
        client.sendall(b"x")
        if way == "tls":  # a unix socket has no reset
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            thread.join(scaled_s(10))
            assert told == ["box-7:22: the connection broke: connection reset by peer"]


def test_a_refusal_is_told_and_is_a_reset(tmp_path: Path, authority: Authority) -> None:
    def refuse(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"HTTP/1.1 403 port 22 is not allowed\r\nContent-Length: 0\r\n\r\n")

    with forwarded(tmp_path, authority, "tls", refuse) as (client, told, _):
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert told == ["box-7:22: port 22 is not allowed"]


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("8080:box-7:80", Forward("127.0.0.1", 8080, "box-7:80")),
        ("0:box-7:postgres", Forward("127.0.0.1", 0, "box-7:postgres")),
        ("*:8631:printer.box-7.longline:631", Forward("0.0.0.0", 8631, "printer.box-7.longline:631")),
        (":8080:box-7:80", Forward("0.0.0.0", 8080, "box-7:80")),
        ("[::1]:8080:box-7:80", Forward("::1", 8080, "box-7:80")),
        ("localhost:8080:box-7:80", Forward("localhost", 8080, "box-7:80")),
    ],
)
def test_what_can_be_forwarded(text: str, forward: Forward) -> None:
    assert parse_forward(text) == forward


@pytest.mark.parametrize(
    "text", ["", "8080", "box-7:80", "8080:80", "65536:box-7:80", "x:y:box-7:80", "1:box 7:80", "1:a:b:c:d"]
)
def test_what_cannot(text: str) -> None:
    with pytest.raises(ForwardUnusable, match=r"write \[BIND:\]PORT:BOX:PORT"):
        parse_forward(text)


def test_all_ports_or_none() -> None:
    told: list[str] = []

    def reach(_target: str) -> tuple[Proxy, Joined]:
        raise ConnectFailed("not here")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        forwards = Forwards(reach, told.append)
        port = taken.getsockname()[1]
        with pytest.raises(ForwardUnusable, match=f"cannot listen on 127.0.0.1 port {port}: address already in use"):
            forwards.listen([parse_forward("0:box-7:22"), parse_forward(f"{port}:box-7:22")])
    free = int(told[0].split()[2].rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free), 5)
    assert MAX_CONNECTIONS < 1024 / 3
