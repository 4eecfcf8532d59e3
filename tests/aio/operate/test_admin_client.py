"""The commands' side where no daemon answers, or one that is none; whole calls are tested with the server."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from tunnel.aio.operate.admin_client import AdminRefused, AdminUnreachable, unix_client


def test_without_a_daemon_the_client_says_so(tmp_path: Path) -> None:
    with pytest.raises(AdminUnreachable, match=r"no daemon runs here: nobody listens on .*admin\.sock"):
        unix_client(tmp_path / "admin.sock").get("status")


def test_a_path_longer_than_the_kernel_takes_is_told(tmp_path: Path) -> None:
    with pytest.raises(AdminUnreachable, match=r"cannot reach the daemon at .*too long"):
        unix_client(tmp_path / ("x" * 100) / "admin.sock").get("status")


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\noh!", AdminRefused, "answered 502 Bad Gateway"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", AdminUnreachable, "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noh!", AdminUnreachable, "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{}", AdminUnreachable, "broke off"),
    ],
)
def test_what_is_no_answer_is_told(tmp_path: Path, said: bytes, error: type[Exception], text: str) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = threading.Thread(target=_answer, args=(listener, said))
        server.start()
        with pytest.raises(error, match=text):
            unix_client(path).get("status")
        server.join()


def _answer(listener: socket.socket, said: bytes) -> None:
    conn, _ = listener.accept()
    with conn:
        conn.recv(65536)
        conn.sendall(said)
