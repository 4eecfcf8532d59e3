"""Dials TLS as `tls.py` speaks it; for an end with a certificate of its own, over a context that the caller made."""

from __future__ import annotations

import asyncio
import ssl

from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.handshake_fault import HandshakeFault
from tunnel.aio.sockets.tcp import connect_tcp
from tunnel.aio.sockets.tls import TlsTransport


async def dial_tls(
    host: str, port: int, context: ssl.SSLContext, *, server_name: str | None = None, handshake_timeout_s: float
) -> Conn:
    """Connects, completes the handshake and returns the connection. Cancelled, it leaves no socket behind.

    Args:
        host: the name or address to connect to.
        port: the port there.
        context: a context for clients.
        server_name: whose certificate is expected; None for that of `host`.
        handshake_timeout_s: seconds from the connection to the end of the handshake.

    Raises:
        ssl.SSLError: TLS failed; ssl.SSLCertVerificationError when the certificate is not good.
        OSError: there is no way, or the connection was lost before the handshake was over.
    """
    handshake = _Handshake()
    conn = Conn()
    secured = TlsTransport(
        context, conn, handshake, server_side=False, server_name=server_name or host,
        handshake_timeout_s=handshake_timeout_s,
    )  # fmt: skip
    await connect_tcp(lambda: secured, host, port)
    try:
        await handshake.over
    except ConnectionAbortedError:
        fault = secured.handshake_fault or ConnectionAbortedError(handshake.reason)
        secured.abort()
        raise fault from None
    except BaseException:
        secured.abort()  # also if it was over just now: nobody has the connection
        raise
    return conn


class _Handshake:
    """The gate of a connection that this end wanted."""

    def __init__(self) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reason = ""

    def admit(self, _transport: asyncio.Transport) -> bool:
        return True

    def secured(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def failed(self, fault: HandshakeFault) -> None:
        self.reason = fault.text
        if not self.over.done():
            self.over.set_exception(ConnectionAbortedError(fault.text))

    def left(self) -> None:
        """Does nothing: whoever has the connection is told of its end by it."""
