"""Waits for the browser that comes back from an issuer, at a port of this machine's own (RFC 8252 7.3)."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from tunnel.core.wire.spoken import printable
from tunnel.tool.issuer import LoginRefused

PATH = "/callback"
WAIT_S = 300.0
"""Seconds that somebody has to log in."""
REQUEST_S = 5.0
"""The most seconds for one request: a browser that only connects holds nothing up."""
_PAGE = "<!doctype html><meta charset=utf-8><title>longline</title><p>{}</p>"


class Loopback:
    """The port of 127.0.0.1 that the browser comes back to. It is a context manager, which closes the port."""

    def __init__(self, port: int, state: str) -> None:
        """Listens on the port; 0 takes a free one.

        A request without the login's `state` is not from the browser that is waited for.

        Raises:
            LoginRefused: the port cannot be listened on.
        """
        self._answer: dict[str, str] = {}
        try:
            self._server = HTTPServer(("127.0.0.1", port), _handler(state, self._answer.update))
        except OSError as error:
            raise LoginRefused(f"127.0.0.1:{port} cannot be listened on: {error.strerror}") from error
        self.redirect = f"http://127.0.0.1:{self._server.server_address[1]}{PATH}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.server_close()

    def code(self, issuer: str) -> str:
        """Waits for the code that the issuer gave, and returns it.

        Raises:
            LoginRefused: the issuer gave none, or nobody logged in within WAIT_S.
        """
        until_s = time.monotonic() + WAIT_S
        while not self._answer:
            self._server.timeout = until_s - time.monotonic()
            if self._server.timeout <= 0:
                raise LoginRefused(f"nobody logged in within {WAIT_S:.0f} s")
            self._server.handle_request()
        answer = self._answer
        if answer.get("iss", issuer) != issuer:  # RFC 9207: another issuer's answer
            raise LoginRefused("the browser came back from another issuer")
        if "code" not in answer:
            why = printable(answer.get("error_description") or answer.get("error") or "it gave no code")
            raise LoginRefused(f"{issuer} refuses: {why[:300]}")
        return answer["code"]


def _handler(state: str, came: Callable[[dict[str, str]], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_S

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query))
            if url.path != PATH or query.get("state") != state:
                self._say(404, "This is not the login that is waited for.")
                return
            came(query)
            good = "code" in query
            self._say(200 if good else 400, "Logged in: go back to the terminal." if good else "The login failed.")

        def _say(self, status: int, text: str) -> None:
            body = _PAGE.format(text).encode()
            self.send_response(status)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Keeps the terminal for the login: a line here would have the code in it."""

    return Handler
