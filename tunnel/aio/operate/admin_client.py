"""The commands' side of the admin API. It blocks and needs no event loop, since a command asks one thing and ends."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import orjson

from tunnel.aio.operate.admin import ANSWER_S, PREFIX

TIMEOUT_S = ANSWER_S + 5.0
"""Seconds to wait for an answer: beyond the daemon's own limit, so that what it says is heard."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""The longest answer: `agents` of a server with 20,000 boxes is some 10 MiB."""
MAX_LINE_BYTES = 1024 * 1024
"""The longest line of a stream."""
READ_BYTES = 64 * 1024


class AdminUnreachable(Exception):
    """No daemon answers; the text says where, why, and what to do."""


class AdminRefused(Exception):
    """The daemon answered with an error.

    Attributes:
        status: the HTTP status.
        text: what it said.
        code: the error's number in the documentation; empty for none.
        remedy: what to type or do; empty for nothing.
    """

    def __init__(self, status: int, text: str, code: str = "", remedy: str = "") -> None:
        super().__init__(f"{text}: {remedy}" if remedy else text)
        self.status = status
        self.text = text
        self.code = code
        self.remedy = remedy


class AdminClient:
    """Calls one daemon, with a connection for each call."""

    def __init__(self, connect: Callable[[], http.client.HTTPConnection], headers: Mapping[str, str]) -> None:
        """Makes calls over what `connect` returns, with these `headers` on each."""
        self._connect = connect
        self._headers = headers

    def get(self, path: str) -> Any:
        """Returns the decoded answer of `GET path`; see `call`."""
        return self.call("GET", path)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Makes one call.

        Args:
            method: the method of HTTP.
            path: what follows the prefix, percent-encoded where that is needed: `agents/box-7`, `opens?watch=1`.
            body: what is sent as JSON; None sends nothing.

        Returns:
            The decoded JSON; None for an answer without a body.

        Raises:
            AdminUnreachable: no daemon answers, or its answer broke off.
            AdminRefused: it answered with an error.
        """
        connection = self._connect()
        try:
            response = self._request(connection, method, path, body)
            raw = response.read(MAX_ANSWER_BYTES)
            if response.length:
                raise http.client.IncompleteRead(raw, response.length)
            return orjson.loads(raw) if raw else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise AdminUnreachable(f"the daemon's answer broke off: {str(error) or type(error).__name__}") from error
        finally:
            connection.close()

    def follow(self, path: str) -> Generator[Any, None, None]:
        """Yields the objects of a stream as they come, until the daemon ends it.

        Raises:
            AdminUnreachable: no daemon answers, or the stream broke off.
            AdminRefused: it answered with an error.
        """
        connection = self._connect()
        try:
            response = self._request(connection, "GET", path, None)
            if connection.sock is not None:
                connection.sock.settimeout(None)  # nothing may happen for hours
            yield from _objects(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise AdminUnreachable(f"the daemon's answer broke off: {str(error) or type(error).__name__}") from error
        finally:
            connection.close()

    def _request(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: object
    ) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        kind = {} if data is None else {"Content-Type": "application/json"}
        connection.request(method, f"{PREFIX}{path}", body=data, headers={**self._headers, **kind})
        response = connection.getresponse()
        if response.status >= 300:
            raise _refusal(response)
        return response


def unix_client(path: Path) -> AdminClient:
    """Returns a client for the daemon whose admin socket is at `path`."""
    return AdminClient(lambda: _UnixConnection(path), {})


# Internal


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        try:
            self.sock.connect(str(self._path))
        except OSError as error:
            self.sock.close()
            raise AdminUnreachable(_why(self._path, error)) from error


def _objects(response: http.client.HTTPResponse) -> Generator[Any, None, None]:
    """Yields what is on each line.

    It does not use `readline`, which takes a stream that broke off for one that ended.
    """
    waiting = b""
    while chunk := response.read1(READ_BYTES):
        *lines, waiting = (waiting + chunk).split(b"\n")
        yield from map(orjson.loads, lines)
        if len(waiting) > MAX_LINE_BYTES:
            raise ValueError(f"a line is longer than {MAX_LINE_BYTES} bytes")


def _why(path: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return f"no daemon runs here: nobody listens on {path}"
        case PermissionError():
            return f"uid {os.geteuid()} may not open {path}: run this as root or as the daemon's own user"
    return f"cannot reach the daemon at {path}: {error.strerror or error}"


def _refusal(response: http.client.HTTPResponse) -> AdminRefused:
    try:
        error = orjson.loads(response.read(MAX_LINE_BYTES))["error"]
        text, code, remedy = str(error["text"]), error.get("code") or "", error.get("remedy") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        text, code, remedy = f"the daemon answered {response.status} {response.reason}", "", ""
    return AdminRefused(response.status, text, code, remedy)
