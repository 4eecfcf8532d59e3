"""`longline connect` as a process, against proxies that are slow, refuse, lie, or leave in the middle."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.pki import Authority
from tests.support.processes import BIN, environment
from tests.support.waits import scaled_s

ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
BLOB = bytes(range(256)) * 16 * 1024
LIMIT_S = 20.0

Script = Callable[["Peer"], object]


class TlsSocket:
    """The server's side of TLS with half-close, which `SSLSocket` does not have."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._step(self._tls.do_handshake)

    def recv(self, count: int) -> bytes:
        try:
            return bytes(self._step(lambda: self._tls.read(count)) or b"")
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def sendall(self, data: bytes) -> None:
        for start in range(0, len(data), 16384):
            self._tls.write(data[start : start + 16384])
            self._sock.sendall(self._outgoing.read())

    def finish(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._sock.sendall(self._outgoing.read())

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self._sock.setsockopt(level, option, value)

    def close(self) -> None:
        self._sock.close()

    def _step(self, call: Callable[[], object]) -> Any:
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                pass
            finally:
                if self._outgoing.pending:
                    self._sock.sendall(self._outgoing.read())
            if data := self._sock.recv(65536):
                self._incoming.write(data)
            else:
                self._incoming.write_eof()


class Peer:
    """The proxy's end of the one connection."""

    def __init__(self, sock: socket.socket | TlsSocket, over: threading.Event) -> None:
        self.sock = sock
        self.over = over
        """Set when the test is."""

    def head(self) -> bytes:
        """The request."""
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            received += self.sock.recv(1)
        return received

    def read_all(self) -> bytes:
        received = bytearray()
        while data := self.sock.recv(65536):
            received += data
        return bytes(received)

    def finish(self) -> None:
        """End our direction, and only that."""
        if isinstance(self.sock, TlsSocket):
            self.sock.finish()
        else:
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Proxy:
    """Serves one connection as a script says."""

    def __init__(self, folder: Path, listener: socket.socket, tls: ssl.SSLContext | None, script: Script) -> None:
        self.folder = folder
        self.via = str(listener.getsockname()) if tls is None else f"127.0.0.1:{listener.getsockname()[1]}"
        self.over = threading.Event()
        self.fault: BaseException | None = None
        self._listener = listener
        self._tls = tls
        self._script = script
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def command(self, *options: str, target: str = "box-7:22") -> list[str]:
        command = [str(BIN / "longline"), "connect", "--via", self.via, *options]
        if self._tls is not None:
            command += ["--kubeconfig", str(self.folder / "me.kubeconfig")]
        return [*command, target]

    def run(self, *options: str, said: bytes = b"", target: str = "box-7:22") -> subprocess.CompletedProcess[bytes]:
        """Run it to its end with something to say."""
        return subprocess.run(
            self.command(*options, target=target),
            input=said,
            capture_output=True,
            env=environment(),
            timeout=scaled_s(LIMIT_S),
        )

    def close(self) -> None:
        self.over.set()
        self._listener.close()
        self.thread.join(scaled_s(LIMIT_S))

    def _serve(self) -> None:
        try:
            sock, _ = self._listener.accept()
            with sock:
                sock.settimeout(LIMIT_S)
                self._script(Peer(sock if self._tls is None else TlsSocket(sock, self._tls), self.over))
        except (OSError, ssl.SSLError) as fault:
            self.fault = fault


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def server_context(authority: Authority, folder: Path, host: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(hosts=[host]).write(folder, "server"))
    return context


def write_kubeconfig(authority: Authority, path: Path) -> None:
    me = authority.issue(uris=["spiffe://longline/user/me"])
    ca, certificate, key = (base64.b64encode(data).decode() for data in (authority.pem, me.certificate_pem, me.key_pem))
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": ca}
    user = {"client-certificate-data": certificate, "client-key-data": key}
    config = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": cluster}],
        "users": [{"name": "a", "user": user}],
    }
    path.write_text(json.dumps(config))  # JSON is YAML


@contextmanager
def proxy(
    folder: Path, way: str, script: Script, authority: Authority, server: ssl.SSLContext | None = None
) -> Iterator[Proxy]:
    write_kubeconfig(authority, folder / "me.kubeconfig")
    if way == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "connect.sock"))
        listener.listen()
        made = Proxy(folder, listener, None, script)
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        made = Proxy(folder, listener, server or server_context(authority, folder), script)
    try:
        yield made
    finally:
        made.close()


def failed(done: subprocess.CompletedProcess[bytes], says: str) -> None:
    """Exit code 1, and one line for people."""
    assert done.returncode == 1, done.stderr
    assert says in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


both_ways = pytest.mark.parametrize("way", ["unix", "tls"])


# Before there is a connection


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
        failed(done, "Error: not [31mallowed")
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
def test_a_server_of_something_else(tmp_path: Path, authority: Authority, way: str) -> None:
    def banner(peer: Peer) -> None:
        peer.sock.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
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
    failed(done, f"{address}: TLS failed: wrong version number")


def test_a_client_certificate_that_the_server_does_not_take(tmp_path: Path, authority: Authority) -> None:
    strict = server_context(authority, tmp_path)
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.load_verify_locations(cadata=Authority("other CA").pem.decode())
    with proxy(tmp_path, "tls", Peer.read_all, authority, strict) as made:
        failed(made.run(), "TLS failed: ")


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
    assert b"Error: " in done.stderr
    assert b"LONGLINE_DEBUG" not in done.stderr  # nothing that nobody thought of


# With a connection


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
