"""Answers that begin and do not go on: a document ends in time, a stream may be silent for as long as it likes."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.connect_server import LIMIT_S, Peer, failed, proxy
from tests.support.pki import Authority
from tests.support.processes import BIN, environment
from tests.support.waits import scaled_s, sooner_than
from tunnel.tool.api import Api, ApiFailed

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20000\r\n\r\n"
TIMEOUT_S = 0.4
DOCUMENT = json.dumps({"items": "x" * 19987}).encode()


def test_ls_gives_up_on_a_document_that_stalls(tmp_path: Path) -> None:
    def stalled(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(HEAD + DOCUMENT[:50])
        peer.over.wait()

    with proxy(tmp_path, "tls", stalled, Authority()) as made:
        kubeconfig = tmp_path / "me.kubeconfig"
        kubeconfig.write_text(kubeconfig.read_text().replace("127.0.0.1:1", made.via))
        argv = [str(BIN / "longline"), "ls", "--kubeconfig", str(kubeconfig), "--timeout", "0.5"]
        done = subprocess.run(argv, capture_output=True, env=environment(), timeout=scaled_s(LIMIT_S))
        failed(done, "the answer began, and its rest did not come in time")
        assert b"LL1024" in done.stderr


@contextmanager
def answering(folder: Path, script: Callable[[socket.socket], object]) -> Iterator[Api]:
    """An API whose server does what a test says behind the head of a request."""
    path = folder / "admin.sock"

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            try:
                script(sock)
            except (BrokenPipeError, ConnectionResetError):
                return  # the client gave up

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield Api(path, timeout_s=TIMEOUT_S)
        thread.join(scaled_s(LIMIT_S))


def pass_by(seconds: float) -> None:
    """What a slow server does between two pieces."""
    threading.Event().wait(seconds)


def test_a_document_that_comes_slowly_is_read_whole(tmp_path: Path) -> None:
    assert len(DOCUMENT) == 20000

    def slow(sock: socket.socket) -> None:
        sock.sendall(HEAD)
        for start in range(0, 20000, 4000):
            pass_by(TIMEOUT_S / 4)
            sock.sendall(DOCUMENT[start : start + 4000])

    with answering(tmp_path, slow) as api:
        assert api.get("/")["items"] == "x" * 19987  # which took longer than the head may


def test_a_document_that_comes_by_drops_ends_too(tmp_path: Path) -> None:
    def dripping(sock: socket.socket) -> None:
        sock.sendall(HEAD)
        for number in range(20000):
            pass_by(TIMEOUT_S / 20)
            sock.sendall(DOCUMENT[number : number + 1])

    with (
        answering(tmp_path, dripping) as api,
        sooner_than(3, "the end of the patience"),
        pytest.raises(ApiFailed, match="did not come in time"),
    ):
        api.get("/")


def test_a_document_that_is_longer_than_it_may_be(tmp_path: Path) -> None:
    with (
        answering(tmp_path, lambda sock: sock.sendall(HEAD + DOCUMENT)) as api,
        pytest.raises(ApiFailed, match="the answer is longer than"),
    ):
        api.get("/", limit_bytes=1024)


def test_a_stream_may_be_silent(tmp_path: Path) -> None:
    def silent(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\none\n")
        pass_by(2 * TIMEOUT_S)
        sock.sendall(b"two\n")

    with answering(tmp_path, silent) as api, api.request("GET", "/") as answer:
        begun = time.monotonic()
        assert list(answer.lines()) == [b"one", b"two"]
        assert time.monotonic() - begun > TIMEOUT_S
