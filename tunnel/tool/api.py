"""Sends the HTTP/1.1 requests of the operator's command: to the fleet API over TLS, or to a server's admin socket.

It blocks. A connection carries one request; what it may upgrade to is a WebSocket, whose bytes the caller moves.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h11
import orjson

from tunnel.aio.process.version import VERSION
from tunnel.core.wire.faults import API_REFUSED, CREDENTIAL_MISSING, FAULTS, VIA_SILENT, Fault, FaultError, decoded
from tunnel.core.wire.spoken import printable
from tunnel.tool.connect import CHUNK_BYTES, ConnectFailed, Patience, Proxy, dial_tls, dial_unix, failure
from tunnel.tool.kubeconfig import Access, KubeconfigUnusable
from tunnel.tool.shapes import ANY, Shape, mismatch

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""The most bytes of a document that is read whole: the nodes of 10,000 boxes are 25 MB."""
MIN_BYTES_PER_S = 4 * 1024
"""The least rate at which such a document must come: less than any link that people work over has left for them."""
MAX_LINE_BYTES = 1024 * 1024
"""The most bytes of one document in an answer that has one on each line."""
MAX_ERROR_BYTES = 64 * 1024
DEFAULT_TIMEOUT_S = 30.0
JSON = "application/json"

Headers = Mapping[str, str]


class ApiFailed(FaultError):
    """A request was answered with an error, or not at all; the text is for the person at the terminal.

    Attributes:
        status: the HTTP status; 0: there was no answer.
    """

    default_fault = API_REFUSED

    def __init__(self, text: str, status: int = 0, fault: Fault | None = None) -> None:
        super().__init__(text, fault)
        self.status = status


class Api:
    """A server to ask. Every request dials anew, so that several threads may ask at once."""

    def __init__(self, where: Access | Path, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Prepares to ask a fleet API, or the admin socket at a path.

        Args:
            where: the kubeconfig's context, or the path of the socket.
            timeout_s: the seconds until the head of an answer, its connection included; and of each pause in a
                document.

        Raises:
            ApiFailed: the kubeconfig's certificates cannot be used.
        """
        self._where = where
        self._timeout_s = timeout_s
        self.name = str(where) if isinstance(where, Path) else where.address
        try:
            self._context = None if isinstance(where, Path) else where.tls()
        except KubeconfigUnusable as error:
            raise ApiFailed(str(error), fault=error.fault) from error

    def get(self, path: str, shape: Shape = ANY, *, accept: str = JSON, limit_bytes: int = MAX_ANSWER_BYTES) -> Any:
        """Returns the JSON document at a path, in the form that `accept` names; None for an answer without a body.

        What is read of a document must stand in its `shape`.

        Raises:
            ApiFailed: the server cannot be reached or refuses, or the answer is no JSON, has another shape, is longer
                than the limit, or ceases to come.
        """
        return self.ask("GET", path, shape=shape, accept=accept, limit_bytes=limit_bytes)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        shape: Shape = ANY,
        *,
        accept: str = JSON,
        limit_bytes: int = MAX_ANSWER_BYTES,
    ) -> Any:
        """Sends a request, with a JSON body unless that is None; returns the JSON of the answer: see `get`.

        Raises:
            ApiFailed: the server cannot be reached or refuses, or the answer is no JSON, has another shape, is longer
                than the limit, or ceases to come.
        """
        with self.request(method, path, body=body, headers={"Accept": accept}) as answer:
            text = answer.read_all(limit_bytes, timeout_s=self._timeout_s)
            try:
                found = orjson.loads(text) if text else None
            except ValueError as error:
                raise ApiFailed(f"{self.name}: the answer to {method} {path} is no JSON") from error
            return check_shape(found, shape, f"{self.name}: the answer to {method} {path.partition('?')[0]}")

    @contextmanager
    def request(
        self, method: str, path: str, *, body: object = None, headers: Headers | None = None
    ) -> Iterator[Answer]:
        """Sends a request, and gives the block the answer once its head is there and says that all is well.

        Raises:
            ApiFailed: the server cannot be reached, or the answer is an error.
        """
        patience = Patience(self._timeout_s)
        content = b"" if body is None else json.dumps(body).encode()
        with self._dial(patience) as answer:
            sent = {"Host": self._host(), "User-Agent": f"longline/{VERSION}", "Accept": JSON}
            if token := self._bearer():
                sent["Authorization"] = f"Bearer {token}"
            if content:
                sent |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
            answer.send(method, path, sent | dict(headers or {}), content)
            answer.check()
            yield answer

    # Internal

    def _bearer(self) -> str:
        try:
            return self._where.bearer() if isinstance(self._where, Access) else ""
        except KubeconfigUnusable as error:
            raise ApiFailed(str(error), fault=error.fault) from error

    def _host(self) -> str:
        return "localhost" if isinstance(self._where, Path) else self._where.url.netloc.rpartition("@")[2]

    def _dial(self, patience: Patience) -> Answer:
        where = self._where
        try:
            if isinstance(where, Path):
                return Answer(dial_unix(where, patience, "admin.sock"), patience)
            assert self._context is not None
            server = dial_tls(
                where.address, self._context, patience, where.proxy, what="server", tls_name=where.tls_name
            )
            return Answer(server, patience)
        except ConnectFailed as error:
            raise ApiFailed(str(error), fault=error.fault) from error


class _DocumentPatience(Patience):
    """The time that a document may take: a limit to each pause, and a least rate, so that there is an end."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._latest_s = self._until_s

    def came(self, count_bytes: int) -> None:
        """Gives time for the rest, now that so many bytes are here."""
        self._latest_s += count_bytes / MIN_BYTES_PER_S
        self._until_s = min(self._latest_s, time.monotonic() + self._timeout_s)

    def over(self, name: str) -> ConnectFailed:
        """Returns the error of an answer whose rest did not come in time."""
        return ConnectFailed(f"{name}: the answer began, and its rest did not come in time", VIA_SILENT)


class Answer:
    """One request and what comes back. It is a context manager, which closes the connection."""

    def __init__(self, server: Proxy, patience: Patience) -> None:
        self.server = server
        self._patience: Patience | None = patience
        self._http = h11.Connection(h11.CLIENT)
        self.status = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.server.sock.close()

    def send(self, method: str, path: str, headers: Headers, content: bytes) -> None:
        """Sends the request.

        Raises:
            ApiFailed: the server cannot be reached any more, or the request is no valid HTTP.
        """
        try:
            data = self._http.send(h11.Request(method=method, target=path, headers=list(headers.items()))) or b""
        except h11.LocalProtocolError as error:
            raise ApiFailed(f"{self.server.name}: the request cannot be sent: {error}") from error
        if content:
            data += self._http.send(h11.Data(content)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        self._push(self.server.wire.seal(data))

    def check(self) -> None:
        """Waits for the head of the answer; from then on, silence is no fault.

        Raises:
            ApiFailed: the answer is an error, or there is none.
        """
        event = self._next()
        if not isinstance(event, h11.Response | h11.InformationalResponse):
            raise ApiFailed(f"{self.server.name}: the server closed the connection before it answered")
        self.status = event.status_code
        if self.status not in (101, *range(200, 300)):
            text = self.read_all(MAX_ERROR_BYTES, cut=True)
            raise _refusal(self.server.name, self.status, text)
        self._patience = None

    def read(self) -> bytes:
        """Waits for some bytes of the body and returns them; b"" at its end.

        Raises:
            ApiFailed: the connection broke: what follows is missing.
        """
        while True:
            event = self._next()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return b""
            if not isinstance(event, h11.InformationalResponse):
                raise ApiFailed(f"{self.server.name}: the connection ended in the middle of the answer")

    def read_all(self, limit_bytes: int, *, cut: bool = False, timeout_s: float | None = None) -> bytes:
        """Returns the whole body.

        Args:
            limit_bytes: the most bytes that it may have.
            cut: whether a longer one is cut instead of refused.
            timeout_s: the longest pause in it, in seconds; None: all of it must come within what is left of the time
                for the head.

        Raises:
            ApiFailed: it is longer than the limit and may not be cut, or broke off, or ceased to come.
        """
        patience = None
        if timeout_s is not None:
            patience = self._patience = _DocumentPatience(timeout_s)
        whole = bytearray()
        while data := self.read():
            whole += data
            if patience is not None:
                patience.came(len(data))
            if len(whole) > limit_bytes:
                if cut:
                    break
                raise ApiFailed(f"{self.server.name}: the answer is longer than {limit_bytes >> 20} MiB")
        return bytes(whole[:limit_bytes])

    def lines(self) -> Iterator[bytes]:
        """Yields the lines of the body as they come, without their ends.

        Raises:
            ApiFailed: the connection broke, or a line is longer than MAX_LINE_BYTES.
        """
        rest = b""
        while data := self.read():
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
            if len(rest) > MAX_LINE_BYTES:
                raise ApiFailed(f"{self.server.name}: a line of the answer is longer than {MAX_LINE_BYTES >> 20} MiB")
        if rest:
            yield rest

    def upgraded(self) -> bytes:
        """Returns what came behind a 101; from here on the socket and its wire belong to the caller."""
        return bytes(self._http.trailing_data[0])

    # Internal

    def _next(self) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(self._receive())
        except h11.RemoteProtocolError as error:
            if self._http.their_state in (h11.SEND_BODY, h11.ERROR) and self.status:
                raise ApiFailed(f"{self.server.name}: the connection ended in the middle of the answer") from error
            raise ApiFailed(f"{self.server.name}: the answer is no HTTP: {error}") from error
        return event

    def _receive(self) -> bytes:
        sock, wire = self.server.sock, self.server.wire
        try:
            while True:
                sock.settimeout(None if self._patience is None else self._patience.left_s())
                received = sock.recv(CHUNK_BYTES)
                data, ended = wire.open(received)
                self._push(wire.pending())
                if data or ended or not received:
                    return data
        except OSError as error:
            raise _broken(failure(self.server, error, self._patience)) from error

    def _push(self, data: bytes) -> None:
        if not data:
            return
        try:
            self.server.sock.settimeout(DEFAULT_TIMEOUT_S if self._patience is None else self._patience.left_s())
            self.server.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):  # what it said before tells more
            return
        except (OSError, ssl.SSLError) as error:
            raise _broken(failure(self.server, error, self._patience)) from error


def _broken(error: ConnectFailed) -> ApiFailed:
    return ApiFailed(str(error), fault=error.fault)


def check_shape(document: object, shape: Shape, what: str) -> Any:
    """Returns a document that has a shape. `what` names it in the error.

    Raises:
        ApiFailed: it has not.
    """
    if why := mismatch(document, shape):
        raise ApiFailed(printable(f"{what} cannot be used: {why}; is the server of another version?"))
    return document


def _refusal(name: str, status: int, body: bytes) -> ApiFailed:
    """Returns the error that an answer tells, by a `Status` of Kubernetes, an error of the admin API, or its number."""
    try:
        content = orjson.loads(body)
    except ValueError:
        content = None
    text, code = "", ""
    if isinstance(content, dict):
        error = content.get("error")
        if isinstance(error, dict):
            text = ": ".join(filter(None, [str(error.get("text") or ""), str(error.get("remedy") or "")]))
            code = str(error.get("code") or "")
        elif isinstance(content.get("message"), str):
            text, code = content["message"], _cause(content.get("details"))
    text, fault = decoded(printable("; ".join(text.splitlines()))[:2000])  # it goes to a terminal
    fault = fault or FAULTS.get(code)
    if status == 401:
        said = f": {text}" if text else ""
        text = f"{name} does not know you: ask for another kubeconfig (cloud-server user kubeconfig){said}"
        fault = fault or CREDENTIAL_MISSING
    return ApiFailed(text or f"{name} answered with status {status}", status, fault)


def _cause(details: object) -> str:
    """Returns the reason of the first cause in the details of a `Status`; empty when there is none."""
    causes = details.get("causes") if isinstance(details, dict) else None
    first = causes[0] if isinstance(causes, list) and causes else None
    return str(first.get("reason") or "") if isinstance(first, dict) else ""


def reset_socket(sock: socket.socket) -> None:
    """Closes a socket so that the other side sees a reset, because bytes may be missing."""
    import struct

    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    finally:
        sock.close()
