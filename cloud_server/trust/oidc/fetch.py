"""Gets JSON documents of an issuer over TLS, bounded in bytes and time: another's server answers as it likes."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import orjson

from tunnel.aio.http.http1 import ClientConnection, HttpError
from tunnel.aio.sockets.tls_client import dial_tls
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.faults import ISSUER_UNREACHABLE, FaultError

MAX_DOCUMENT_BYTES = 256 * 1024
"""The most bytes of one document: a key with its certificates takes some 4 KiB."""
FETCH_S = 10.0
"""The most seconds for one document, from the name's look-up to its last byte."""


class FetchFailed(FaultError):
    """A document cannot be had now. The text says why."""

    default_fault = ISSUER_UNREACHABLE


async def fetch_json(url: str, ca_file: Path | None) -> dict[str, Any]:
    """Returns the JSON object at an https:// URL. A redirect is not followed: the issuer says where its documents are.

    Args:
        url: of the document.
        ca_file: the authorities to trust, read at each call; None for those of the system.

    Raises:
        FetchFailed: there is none, or it cannot be had within FETCH_S.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or not url.isascii() or not url.isprintable():
            raise FetchFailed(f"{url[:200]!r} is no https:// address")
        async with asyncio.timeout(FETCH_S):
            status, body = await _get(parts.hostname, parts.port or 443, _target(url), parts.netloc, ca_file)
    except TimeoutError as error:
        raise FetchFailed(f"{url} did not answer within {FETCH_S:.0f} s") from error
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or error
        raise FetchFailed(f"the certificate or TLS of {url} is not good: {why}") from error
    except (OSError, StreamError, HttpError, h11.LocalProtocolError, ValueError) as error:
        raise FetchFailed(f"{url} cannot be had: {error}") from error
    if status != 200:
        raise FetchFailed(f"{url} answers with status {status}")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise FetchFailed(f"{url} is no JSON") from error
    if not isinstance(document, dict):
        raise FetchFailed(f"{url} is no JSON object")
    return document


# Internal


async def _get(host: str, port: int, target: str, netloc: str, ca_file: Path | None) -> tuple[int, bytes]:
    context = await asyncio.to_thread(_context, ca_file)
    conn = await dial_tls(host, port, context, handshake_timeout_s=FETCH_S)
    try:
        http = ClientConnection(conn)
        sent = [("host", netloc.rpartition("@")[2]), ("accept", "application/json"), ("connection", "close")]
        answer = await http.request("GET", target, sent)
        return answer.status, await http.read_body(MAX_DOCUMENT_BYTES)
    finally:
        conn.transport.abort()


def _context(ca_file: Path | None) -> ssl.SSLContext:
    """Returns the TLS context for an issuer. Blocking."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        why = str(error.strerror or error).lower()
        raise FetchFailed(f"[oidc] ca_file {ca_file} cannot be used: {why}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
