"""A CONNECT proxy of one connection that does what a test says, over TLS or a unix socket, and a kubeconfig for it."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import struct
import subprocess
import threading
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
