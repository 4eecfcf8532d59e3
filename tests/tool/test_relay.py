"""Carrying as a process: both ends of a connection, and what is no end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.connect_server import (
    BLOB,
    ESTABLISHED,
    LIMIT_S,
    Peer,
    both_ways,
    failed,
    proxy,
)
from tests.support.pki import Authority
from tests.support.processes import environment
from tests.support.waits import scaled_s
from tunnel.tool.relay import pumped


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@both_ways
def test_what_came_with_the_answer_and_its_end_are_not_lost(tmp_path: Path, authority: Authority, way: str) -> None:
    """Standard input stays open, as that of a terminal would: the end must be seen all the same."""

    def daytime(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(ESTABLISHED + b"noon\n")
        peer.finish()
        assert peer.read_all() == b""

    with (
        proxy(tmp_path, way, daytime, authority) as made,
        subprocess.Popen(made.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read() == b"noon\n"
        process.stdin.close()
        assert process.wait(scaled_s(LIMIT_S)) == 0


@both_ways
def test_the_server_may_finish_first(tmp_path: Path, authority: Authority, way: str) -> None:
    received: list[bytes] = []

    def sink(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(ESTABLISHED)
        peer.finish()
        received.append(peer.read_all())

    with proxy(tmp_path, way, sink, authority) as made:
        done = made.run(said=BLOB)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert received == [BLOB]


@both_ways
def test_a_server_that_leaves_while_it_is_told_more(tmp_path: Path, authority: Authority, way: str) -> None:
    def leave(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(ESTABLISHED)
        peer.sock.recv(1)
        peer.finish()
        peer.sock.close()

    with proxy(tmp_path, way, leave, authority) as made:
        failed(made.run(said=BLOB), "the connection broke: ")


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_is_no_end(tmp_path: Path, authority: Authority, reset: bool) -> None:
    def cut(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(ESTABLISHED + b"half of")
        peer.sock.recv(5)
        if reset:
            peer.reset()

    with proxy(tmp_path, "tls", cut, authority) as made:
        with subprocess.Popen(
            made.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        ) as process:
            out, err = process.communicate(b"hello", scaled_s(LIMIT_S))
        assert out == b"half of"
        assert process.returncode == 1
        assert err.count(b"\n") == 1
        assert b"the connection broke: " in err


@both_ways
def test_nobody_reads_standard_output(tmp_path: Path, authority: Authority, way: str) -> None:
    ended = threading.Event()

    def endless(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(ESTABLISHED)
        with suppress(OSError):
            while True:
                peer.sock.sendall(BLOB)
        ended.set()

    with proxy(tmp_path, way, endless, authority) as made:
        with subprocess.Popen(
            made.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(5) == BLOB[:5]
            process.stdout.close()
            assert b"nobody reads standard output" in process.stderr.read()
            assert process.wait(scaled_s(LIMIT_S)) == 1
        assert ended.wait(scaled_s(LIMIT_S))


def test_a_socket_stands_for_an_input_that_cannot_be_waited_for() -> None:
    """As on Windows: all bytes, and then the end."""
    source, feed = os.pipe()
    with pumped(source) as sock:
        sock.settimeout(scaled_s(LIMIT_S))
        for part in (b"one", b"two" * 50_000):
            sent = threading.Thread(target=os.write, args=(feed, part))
            sent.start()
            received = b""
            while len(received) < len(part):
                received += sock.recv(65536)
            assert received == part
            sent.join()
        os.close(feed)
        assert sock.recv(1) == b""
    os.close(source)


def test_a_relay_with_a_thread_for_its_input(tmp_path: Path, authority: Authority) -> None:
    def echo(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(ESTABLISHED)
        received = peer.read_all()
        peer.sock.sendall(received)
        peer.finish()

    with proxy(tmp_path, "tls", echo, authority) as made:
        code = "import tunnel.tool.relay as r, tunnel.tool.cli as c; r.SELECTS_FILES = False; c.main()"
        words = [sys.executable, "-c", code, *made.command()[1:]]
        done = subprocess.run(words, input=BLOB, capture_output=True, env=environment(), timeout=scaled_s(LIMIT_S))
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == BLOB
