"""A daemon's pages for machines: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever restarts it.

Plain HTTP, meant for loopback or a network of the operator's own: it tells how busy the daemon is, and no secrets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from tunnel.aio.http.http1 import Request, ServerConnection
from tunnel.aio.sockets.conn import Conn

IDLE_S = 60.0
"""Seconds that a scraper may keep a connection between two requests."""
_TEXT = ("content-type", "text/plain; charset=utf-8")
_METRICS = ("content-type", "text/plain; version=0.0.4; charset=utf-8")


class MetricsEndpoint:
    """Answers the connections of a listener with these pages."""

    def __init__(
        self,
        render: Callable[[], bytes],
        not_ready: Callable[[], str],
        remarks: Callable[[], Sequence[str]],
        checks: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Sets what the pages say.

        Args:
            render: returns the metrics in Prometheus' text format.
            not_ready: returns why no work is taken; empty when it is.
            remarks: returns what else an operator should know of, a line each; it does not count against readiness.
            checks: returns what can be asked for by itself, as `/readyz/NAME`: why it is not well, empty when it is.
        """
        self._render = render
        self._not_ready = not_ready
        self._remarks = remarks
        self._checks = checks

    async def handle(self, conn: Conn) -> None:
        """Serves a connection to its end."""
        http = ServerConnection(conn)
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    request = await http.next_request()
                if request is None:
                    return
                await self._answer(http, request)
        except TimeoutError:
            return

    async def _answer(self, http: ServerConnection, request: Request) -> None:
        if request.method not in ("GET", "HEAD"):
            await http.respond(405, [_TEXT, ("allow", "GET, HEAD")], b"only GET is served here\n")
            return
        match request.path:
            case "/metrics":
                await http.respond(200, [_METRICS], self._render())
            case "/livez" | "/healthz":
                await http.respond(200, [_TEXT], b"ok\n")
            case "/readyz":
                fault = self._not_ready()
                await _tell(http, fault, [fault or "ok", *self._remarks(), *self._verbose(request)])
            case path if path.startswith("/readyz/") and path.removeprefix("/readyz/") in (checks := self._checks()):
                fault = checks[path.removeprefix("/readyz/")]
                await _tell(http, fault, [fault or "ok"])
            case _:
                await http.respond(404, [_TEXT], b"here are /metrics, /livez and /readyz\n")

    def _verbose(self, request: Request) -> list[str]:
        """Returns a line for each check, as `?verbose` asks for it, in the words of kube-apiserver's page."""
        if not any(name == "verbose" for name, _ in request.query):
            return []
        return [f"[-]{name} {fault}" if fault else f"[+]{name} ok" for name, fault in sorted(self._checks().items())]


async def _tell(http: ServerConnection, fault: str, lines: Sequence[str]) -> None:
    await http.respond(503 if fault else 200, [_TEXT], "".join(f"{line}\n" for line in lines).encode())
