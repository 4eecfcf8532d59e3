"""The administration API as its samples say it: a real HTTP server, on a unix socket or over TLS."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SAMPLES: list[dict[str, Any]] = json.loads((ROOT / "cloud_server/operate/samples.json").read_text())
OPENAPI: dict[str, Any] = json.loads((ROOT / "cloud_server/operate/openapi.json").read_text())
PREFIX = "/longline/v1/"


class AdminServer:
    """Answers with the samples; tests change them, and see what was asked."""

    def __init__(self) -> None:
        self.samples = {(one["method"], one["path"]): one for one in json.loads(json.dumps(SAMPLES))}
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and the Authorization header."""
        self.cut = False
        """Lines end in the middle: a server that was killed."""

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path.removeprefix(PREFIX)
        self.asked.append((handler.command, path, handler.headers.get("Authorization") or ""))
        sample = self.samples.get((handler.command, path))
        if sample is None or not handler.path.startswith(PREFIX):
            sample = {"status": 404, "body": {"error": {"code": None, "text": f"no {path}", "remedy": None}}}
        if "lines" in sample:
            self._lines(handler, sample["lines"])
            return
        body = json.dumps(sample["body"]).encode()
        handler.send_response(sample["status"])
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _lines(self, handler: http.server.BaseHTTPRequestHandler, lines: list[object]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-ndjson")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for line in [*lines, None]:
            data = b"\n" if line is None else json.dumps(line).encode() + b"\n"  # an empty line is a sign of life
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if self.cut:
            handler.close_connection = True
        else:
            handler.wfile.write(b"0\r\n\r\n")


class _Threads(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    context: ssl.SSLContext | None = None

    def get_request(self) -> tuple[Any, Any]:
        sock, address = self.socket.accept()
        return (self.context.wrap_socket(sock, server_side=True) if self.context else sock), address or ("unix", 0)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no fault of a test's."""


class _UnixThreads(_Threads):
    address_family = socket.AF_UNIX


@contextlib.contextmanager
def admin_server(where: Path | ssl.SSLContext) -> Iterator[tuple[AdminServer, int]]:
    """Serve on a unix socket at a path, or over TLS; gives the port, 0 for a socket."""
    admin = AdminServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            if length := int(self.headers.get("Content-Length") or 0):
                self.rfile.read(length)
            admin.answer(self)

        do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Nobody reads it."""

    server: _Threads
    if isinstance(where, Path):
        server = _UnixThreads(str(where), Handler)  # type: ignore[arg-type]  # a path is the address of its family
    else:
        server = _Threads(("127.0.0.1", 0), Handler)
        server.context = where
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield admin, 0 if isinstance(where, Path) else server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
