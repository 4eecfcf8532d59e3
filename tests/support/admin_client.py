"""A client of the admin API, with blocking sockets: on the unix socket of a daemon, or over TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PREFIX = "/longline/v1/"
TIMEOUT_S = 20.0


class AdminRefused(Exception):
    """The answer is an error."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(f"{status}: {error}")
        self.status = status
        self.code = error["code"]
        self.text: str = error["text"]
        self.remedy = error["remedy"]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


class AdminClient:
    """Asks one server; each request on a connection of its own."""

    def __init__(self, where: Path | int, tls: ssl.SSLContext | None = None, token: str = "") -> None:
        """`where`: the path of the socket, or the port of the fleet API, with `tls`."""
        self._where = where
        self._tls = tls
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of the answer; None for no body.

        Raises:
            AdminRefused: it is an error.
        """
        with self._answer(method, path, body) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    @contextlib.contextmanager
    def lines(self, path: str) -> Iterator[Iterator[dict[str, Any]]]:
        """The objects of a stream as they come."""
        with self._answer("GET", path, None) as answer:
            yield (json.loads(line) for line in answer if line.strip())

    @contextlib.contextmanager
    def _answer(self, method: str, path: str, body: object) -> Iterator[http.client.HTTPResponse]:
        connection = (
            _UnixConnection(self._where)
            if isinstance(self._where, Path)
            else http.client.HTTPSConnection("127.0.0.1", self._where, timeout=TIMEOUT_S, context=self._tls)
        )
        with contextlib.closing(connection):
            content = json.dumps(body) if body is not None else None
            connection.request(method, PREFIX + path, content, self._headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                error = json.loads(answer.read()).get("error")
                raise AdminRefused(answer.status, error or {"code": None, "text": "no error of ours", "remedy": None})
            yield answer
