"""Asking as a process, of proxies that are slow, refuse, lie, or leave before they answered."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.support.connect_server import (
    ESTABLISHED,
    LIMIT_S,
    Peer,
    both_ways,
    failed,
    proxy,
    server_context,
    write_kubeconfig,
)
from tests.support.pki import Authority
from tests.support.processes import BIN, environment
from tests.support.waits import scaled_s


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@both_ways
def test_silence_ends_at_the_deadline(tmp_path: Path, authority: Authority, way: str) -> None:
    def silent(peer: Peer) -> None:
        peer.head()
        peer.over.wait()

    with proxy(tmp_path, way, silent, authority) as made:
        failed(made.run("--timeout", "1"), f"{made.via}: no answer within 1 s")


@both_ways
def test_an_answer_that_drips_does_not_move_the_deadline(tmp_path: Path, authority: Authority, way: str) -> None:
    def drip(peer: Peer) -> None:
        peer.head()
        for byte in ESTABLISHED * 100:
            if peer.over.wait(0.2):
                break
            peer.sock.sendall(bytes([byte]))

    with proxy(tmp_path, way, drip, authority) as made:
        start_s = time.monotonic()
        failed(made.run("--timeout", "1"), "no answer within 1 s")
        assert time.monotonic() - start_s < scaled_s(5)


def test_silence_in_the_handshake_ends_at_the_deadline(tmp_path: Path, authority: Authority) -> None:
    write_kubeconfig(authority, tmp_path / "me.kubeconfig")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = ["--via", f"127.0.0.1:{listener.getsockname()[1]}", "--kubeconfig", str(tmp_path / "me.kubeconfig")]
        command = [str(BIN / "longline"), "connect", *made, "--timeout", "1", "box-7:22"]
        done = subprocess.run(command, input=b"", capture_output=True, env=environment(), timeout=scaled_s(LIMIT_S))
    failed(done, "no answer within 1 s")


@both_ways
def test_a_refusal_is_told_and_no_more(tmp_path: Path, authority: Authority, way: str) -> None:
    def refuse(peer: Peer) -> None:
        peer.head()
        body = b"never shown\n"
        peer.sock.sendall(b"HTTP/1.1 403 not \x1b[31mallowed\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        peer.finish()

    with proxy(tmp_path, way, refuse, authority) as made:
        done = made.run(said=b"hello")
        failed(done, "Error [LL1022]: not ?allowed\n")
        assert done.stdout == b""


@both_ways
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2"])
def test_a_server_that_leaves_before_its_answer(tmp_path: Path, authority: Authority, way: str, answer: bytes) -> None:
    def leave(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(answer)

    with proxy(tmp_path, way, leave, authority) as made:
        failed(made.run(), f"{made.via}: the server closed the connection before it answered")


@both_ways
@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed\r\n\r\n"])
def test_a_server_of_something_else(tmp_path: Path, authority: Authority, way: str, answer: bytes) -> None:
    def banner(peer: Peer) -> None:
        peer.sock.sendall(answer)
        peer.over.wait()

    with proxy(tmp_path, way, banner, authority) as made:
        failed(made.run("--timeout", "5"), f"{made.via}: the answer is not that of a CONNECT proxy")


def test_a_foreign_certificate(tmp_path: Path, authority: Authority) -> None:
    foreign = server_context(Authority("other CA"), tmp_path)
    with proxy(tmp_path, "tls", Peer.read_all, authority, foreign) as made:
        failed(made.run(said=b"hello"), f"{made.via}: its certificate is not trusted: ")


def test_a_certificate_of_another_name(tmp_path: Path, authority: Authority) -> None:
    other = server_context(authority, tmp_path, "cloud.example.com")
    with proxy(tmp_path, "tls", Peer.read_all, authority, other) as made:
        failed(made.run(), "its certificate is not trusted: ")


def test_a_server_without_tls(tmp_path: Path, authority: Authority) -> None:
    write_kubeconfig(authority, tmp_path / "me.kubeconfig")
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

    with listener:
        thread = threading.Thread(target=serve)
        thread.start()
        command = [str(BIN / "longline"), "connect", "--via", address, "--kubeconfig", str(tmp_path / "me.kubeconfig")]
        done = subprocess.run(
            [*command, "box-7:22"], input=b"", capture_output=True, env=environment(), timeout=scaled_s(LIMIT_S)
        )
        thread.join()
    failed(done, f"{address}: what listens there does not speak TLS")


def test_a_client_certificate_that_the_server_does_not_take(tmp_path: Path, authority: Authority) -> None:
    strict = server_context(authority, tmp_path)
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.load_verify_locations(cadata=Authority("other CA").pem.decode())
    with proxy(tmp_path, "tls", Peer.read_all, authority, strict) as made:
        failed(made.run(), "the server does not take your certificate (")


@pytest.mark.parametrize(
    ("via", "target"),
    [
        ("127.0.0.1:99999", "box-7:22"),
        ("127.0.0.1:0", "box-7:22"),
        ("127.0.0.1", "box-7:22"),
        ("..:7444", "box-7:22"),
        ("127.0.0.1:1", "box-7:22\r\nX-Injected: yes"),
        ("127.0.0.1:1", "box-7 :22"),
        ("127.0.0.1:1", "b\u00f6x:22"),
        ("127.0.0.1:1", ""),
    ],
)
def test_slips_are_told(tmp_path: Path, authority: Authority, via: str, target: str) -> None:
    write_kubeconfig(authority, tmp_path / "me.kubeconfig")
    command = [str(BIN / "longline"), "connect", "--via", via, "--kubeconfig", str(tmp_path / "me.kubeconfig"), target]
    done = subprocess.run(command, input=b"", capture_output=True, env=environment(), timeout=scaled_s(LIMIT_S))
    assert done.returncode in (1, 2)
    assert b"Error [LL" in done.stderr
    assert b"LONGLINE_DEBUG" not in done.stderr  # nothing that nobody thought of
