"""Every way in that lasts, under way at once for one user: kubectl, longline, CONNECT, SOCKS, and plain HTTP."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.cluster import Cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.processes import BIN
from tests.support.tunnel import exchange, read_exactly
from tests.support.waits import scaled_s

AT_BOXES = ("exec", "logs", "port-forward", "connect", "socks")
"""Those that lead to a box."""
ALL = (*AT_BOXES, "watch", "kubectl watch", "events")


class Way:
    """Something that runs until it is ended; `say` blocks until then, and returns what there was to see of it."""

    def __init__(self, name: str, say: Callable[[], str]) -> None:
        self.name = name
        self.said = ""
        self.ended_s: float | None = None
        """When, by the monotonic clock; None while it runs."""
        self._say = say
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.said = self._say()
        except Exception as error:  # noqa: BLE001 - also what a library says of a connection that the test has closed
            self.said = f"{type(error).__name__}: {error}"
        self.ended_s = time.monotonic()

    def join(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        self._thread.join(max(timeout_s, 0.0))
        return self.ended_s is not None


@dataclass
class Person(KubectlUser):
    """Somebody with a kubeconfig, at a cluster that has all of the ways."""

    cluster: Cluster
    kubeconfig: Path
    folder: Path
    socks_port: int
    echo_port: int

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    @property
    def env(self) -> dict[str, str]:
        env = super().env
        return {**env, "PATH": f"{BIN}:{env['PATH']}", "XDG_CACHE_HOME": str(self.folder / "cache")}

    @property
    def token(self) -> str:
        return str(yaml.safe_load(self.kubeconfig.read_text())["users"][0]["user"]["token"])

    # Public

    @contextlib.contextmanager
    def under_way(self, box: str, names: Sequence[str] = ALL) -> Iterator[list[Way]]:
        """These ways, each of which has shown that it works."""
        starts: dict[str, Callable[[], contextlib.AbstractContextManager[Way]]] = {
            "exec": lambda: self._program("exec", "exec", box, "--", "sh", "-c", "echo ready; exec sleep 600"),
            "logs": lambda: self._program("logs", "logs", "-f", box, "-c", "app.log"),
            "port-forward": lambda: self._port_forward(box),
            "connect": lambda: self._connect(box),
            "socks": lambda: self._socks(box),
            "watch": self._watch,
            "kubectl watch": lambda: self._program("kubectl watch", "get", "nodes", "-w"),
            "events": lambda: self._program("events", "events", "-f", program="longline"),
        }
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(starts[name]()) for name in names]

    def fleet(self) -> http.client.HTTPSConnection:
        """A connection to the fleet API, which is kept alive."""
        tls: ssl.SSLContext = self.cluster.operator_tls(certificate=False)
        return http.client.HTTPSConnection("127.0.0.1", self.cluster.fleet_port, context=tls, timeout=scaled_s(20))

    def ask(self, connection: http.client.HTTPSConnection, path: str = "/api/v1/nodes") -> tuple[int, str]:
        """Status and text of the answer to one more request of a connection."""
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def dial(self, box: str) -> socket.socket:
        """Through CONNECT."""
        headers = f"Proxy-Authorization: Bearer {self.token}\r\n"
        return self.cluster.dial_tls(f"{box}:{self.echo_port}", headers=headers, certificate=False)

    def login_at_socks(self) -> socket.socket:
        """A SOCKS connection whose user is known, and that has asked for nothing yet."""
        token = self.token.encode()
        sock = socket.create_connection(("127.0.0.1", self.socks_port), scaled_s(20))
        sock.sendall(b"\x05\x01\x02\x01\x02me" + bytes([len(token)]) + token)
        assert read_exactly(sock, 4) == b"\x05\x02\x01\x00"
        return sock

    def ask_at_socks(self, sock: socket.socket, box: str) -> int:
        """The code of the reply to a request; 0 for granted."""
        sock.sendall(b"\x05\x01\x00\x03" + bytes([len(box)]) + box.encode() + self.echo_port.to_bytes(2))
        return read_exactly(sock, 10)[1]

    # Internal

    @contextlib.contextmanager
    def _program(self, name: str, *words: str, program: str = "") -> Iterator[Way]:
        argv = [program, *words] if program else self._argv(words)
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.env,
            cwd=self.folder, text=True,
        ) as process:  # fmt: skip
            try:
                yield Way(name, _until_exit(process))
            finally:
                process.kill()

    @contextlib.contextmanager
    def _port_forward(self, box: str) -> Iterator[Way]:
        words = self._argv(["port-forward", box, f":{self.echo_port}"])
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.env,
            cwd=self.folder, text=True,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                port = int(line.partition("127.0.0.1:")[2].partition(" ")[0])
                with socket.create_connection(("127.0.0.1", port), scaled_s(20)) as sock:
                    yield Way("port-forward", _until_end(sock))
            finally:
                process.kill()

    @contextlib.contextmanager
    def _connect(self, box: str) -> Iterator[Way]:
        with self.dial(box) as sock:
            yield Way("connect", _until_end(sock))

    @contextlib.contextmanager
    def _socks(self, box: str) -> Iterator[Way]:
        with self.login_at_socks() as sock:
            assert self.ask_at_socks(sock, box) == 0
            yield Way("socks", _until_end(sock))

    @contextlib.contextmanager
    def _watch(self) -> Iterator[Way]:
        with contextlib.closing(self.fleet()) as connection:
            connection.request("GET", "/api/v1/nodes?watch=1", headers={"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            assert answer.status == 200
            assert b'"ADDED"' in answer.readline()
            connection.sock.settimeout(None)

            def say() -> str:
                lines = b""
                try:
                    while piece := answer.read1():  # unlike `readline`, it tells an end from a connection that broke
                        lines += piece
                except (OSError, http.client.HTTPException) as error:
                    return f"{lines.decode()} then {type(error).__name__}"
                return f"{lines.decode()} then a clean end"

            yield Way("watch", say)


def _until_exit(process: subprocess.Popen[str]) -> Callable[[], str]:
    """Behind its first line."""
    assert process.stdout is not None
    first = process.stdout.readline()

    def say() -> str:
        assert process.stdout is not None
        said = first + process.stdout.read()
        return f"{said}exit code {process.wait()}"

    return say


def _until_end(sock: socket.socket) -> Callable[[], str]:
    """Behind an echo."""
    assert exchange(sock) == b"ping"
    sock.settimeout(None)

    def say() -> str:
        return "the end" if sock.recv(1) == b"" else "something"

    return say
