"""Finds which hop is broken when a dial failed: DNS, TCP, proxy, TLS or HTTP/2, in one line that says what to do.

gRPC says little more than "unavailable", and its server closes the connection without a TLS alert when it rejects a
client's certificate. So the same way is walked again with Python's own TLS and the same certificates.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from tunnel.aio.identity.certificate import Certificate, name_text, read_certificate, read_pem
from tunnel.aio.identity.clock import SET_IT
from tunnel.aio.identity.openssl import load_chain
from tunnel.aio.identity.tls_material import ClientTls, CredentialsUnusable, LoadedTls
from tunnel.aio.identity.validity import clock_says, date, span
from tunnel.aio.sockets.address import split_address
from tunnel.aio.sockets.http_proxy import HttpProxy, ProxyUnusable
from tunnel.core.wire.faults import (
    BOX_CERTIFICATE_TIME,
    BOX_NOT_ACCEPTED,
    CONFIG_INVALID,
    LINK_BROKE,
    PROXY_REFUSED,
    SERVER_CERTIFICATE_TIME,
    SERVER_NAME_DIFFERS,
    SERVER_NAME_NOT_FOUND,
    SERVER_NOT_TRUSTED,
    SERVER_SILENT,
    SERVER_SPEAKS_NO_HTTP2,
    SERVER_SPEAKS_NO_TLS,
    SERVER_UNREACHABLE,
    FaultError,
)
from tunnel.core.wire.spoken import spoken_s

_TIMEOUT_S = 5.0
_FIRST_BYTES_S = 2.0
"""Seconds to wait for the server's HTTP/2 settings, which follow its handshake; longer silence means that it accepted
us.
"""
_PROXY_ANSWER_S = 2.5
"""Seconds to wait for a proxy's answer to CONNECT, for which it has to connect."""

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def find_fault(address: str, tls: ClientTls, proxy: HttpProxy | None) -> FaultError | None:
    """Walks the way to the server again, and returns in one line which hop is broken, by which cause, and what to do.

    Returns None when no hop is broken.

    Args:
        address: the address, as it was dialled.
        tls: the certificates, as they were used for the dial.
        proxy: the proxy that it was dialled through; None without one.
    """
    try:
        host, port = split_address(address)
        loaded = await asyncio.to_thread(tls.load)
        walk = _Walk(host=host, port=port, loaded=loaded, proxy=proxy)
        async with asyncio.timeout(_TIMEOUT_S):
            await walk.check()
    except (_Broken, CredentialsUnusable, ProxyUnusable) as fault:
        return _Broken(fault.text, fault.fault)
    except ValueError as fault:
        return _Broken(str(fault), CONFIG_INVALID)
    except TimeoutError:
        text = f"no answer within {spoken_s(_TIMEOUT_S)} (TCP or TLS){_behind(proxy)}: a firewall may drop the packets"
        return _Broken(text, SERVER_SILENT)
    except OSError as fault:
        return _Broken(f"connection broke{_behind(proxy)}: {fault.strerror or fault}", LINK_BROKE)
    return None


# Internal


class _Broken(FaultError):
    """A hop is broken; the text is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    host: str
    port: int
    loaded: LoadedTls
    proxy: HttpProxy | None

    async def check(self) -> None:
        """Raises _Broken at the first hop that is broken."""
        try:
            context = await asyncio.to_thread(_client_context, self.loaded)
            async with self._connected(context) as (reader, writer):
                await self._check_http2(reader, writer)
        except ssl.SSLCertVerificationError as fault:
            raise await self._server_certificate_fault(fault) from fault
        except ssl.SSLError as fault:
            raise self._tls_fault(fault) from fault
        except ConnectionError as fault:
            where = _behind(self.proxy)
            text = f"the server closed the connection during the TLS handshake{where}; does it speak TLS?"
            raise _Broken(text, SERVER_SPEAKS_NO_TLS) from fault

    @contextlib.asynccontextmanager
    async def _connected(self, context: ssl.SSLContext) -> AsyncIterator[_Streams]:
        reader, writer = await self._tcp()
        try:
            await writer.start_tls(context, server_hostname=self.host)
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _tcp(self) -> _Streams:
        if self.proxy is None:
            return await _open_tcp(self.host, self.port, f"server on port {self.port}")
        reader, writer = await _open_tcp(self.proxy.host, self.proxy.port, str(self.proxy))
        try:
            await self._ask(self.proxy, reader, writer)
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    async def _ask(self, proxy: HttpProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(proxy.request(self.host, self.port))
        try:
            async with asyncio.timeout(_PROXY_ANSWER_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            raise _Broken(f"the {proxy} does not answer within {spoken_s(_PROXY_ANSWER_S)}", PROXY_REFUSED) from None
        except asyncio.IncompleteReadError as fault:
            head = fault.partial
        except asyncio.LimitOverrunError:
            head = b""
        except ConnectionError as fault:
            raise _Broken(f"the {proxy} closed the connection before it answered", PROXY_REFUSED) from fault
        if refusal := proxy.refusal(head, self.host, self.port):
            raise _Broken(refusal, PROXY_REFUSED)

    async def _check_http2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        alpn = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        if alpn != "h2":
            raise _Broken(
                "the server speaks TLS but not HTTP/2: another service listens there, or a TLS proxy between",
                SERVER_SPEAKS_NO_HTTP2,
            )
        server_begins = _begin(writer)
        # In TLS 1.3 our side of the handshake is done before the server has seen our certificate.
        try:
            async with asyncio.timeout(_FIRST_BYTES_S):
                first = await reader.read(1)
        except TimeoutError:
            return
        except ssl.SSLError as fault:
            raise (_own_certificate_fault(self.loaded, server_begins) or self._tls_fault(fault)) from fault
        except ConnectionError:
            first = b""
        if not first:
            text = f"the server does not accept this box's certificate (its log says why; {clock_says()}): join again"
            raise _own_certificate_fault(self.loaded, server_begins) or _Broken(text, BOX_NOT_ACCEPTED)

    def _tls_fault(self, fault: ssl.SSLError) -> _Broken:
        reason = (fault.reason or str(fault)).upper()
        if "ALERT" in reason:
            told = reason.rpartition("ALERT_")[2].replace("_", " ").lower()
            return _Broken(f"the server does not accept this box's certificate ({told}): join again", BOX_NOT_ACCEPTED)
        if "WRONG_VERSION_NUMBER" in reason or "HTTP_REQUEST" in reason or "RECORD_LAYER" in reason:
            return _Broken(f"what listens on port {self.port} does not speak TLS", SERVER_SPEAKS_NO_TLS)
        return _Broken(f"TLS failed: {reason.replace('_', ' ').lower()}", LINK_BROKE)

    async def _server_certificate_fault(self, fault: ssl.SSLCertVerificationError) -> _Broken:
        certificate = await self._server_certificate()
        names = ", ".join(sorted(certificate.hosts)) if certificate else ""
        match fault.verify_code:
            case 62 | 64:
                text = f"name of the server is not in its certificate: {self.host}; it has {names or 'none'}"
                return _Broken(text, SERVER_NAME_DIFFERS)
            case 10 if certificate:
                end = date(certificate.validity.not_after)
                return _Broken(
                    f"the server's certificate expired on {end}, and {clock_says()}: if that is wrong, {SET_IT}; "
                    "if it is right, restart the server, or renew its certificate (cloud-server certificate renew)",
                    SERVER_CERTIFICATE_TIME,
                )
            case 9 if certificate:
                begin = certificate.validity.not_before
                behind = span(begin - datetime.now(UTC))
                return _Broken(
                    f"the server's certificate is not valid before {date(begin)}, and {clock_says()}, "
                    f"{behind} before that: {SET_IT}",
                    SERVER_CERTIFICATE_TIME,
                )
            case 18 | 19 | 20 | 21:
                issuer = name_text(certificate.issuer_der) if certificate else "an unknown authority"
                text = f"this box does not trust the server's certificate, which is from {issuer}: join again?"
                return _Broken(text, SERVER_NOT_TRUSTED)
        return _Broken(f"the server's certificate is not accepted: {fault.verify_message}", SERVER_NOT_TRUSTED)

    async def _server_certificate(self) -> Certificate | None:
        """Returns the certificate that was not accepted, which is looked at and never trusted; None when none was
        shown.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        try:
            async with self._connected(context) as (_, writer):
                der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        except (OSError, _Broken):
            return None
        return read_certificate(der) if der else None


async def _open_tcp(host: str, port: int, what: str) -> _Streams:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as fault:
        raise _Broken(
            f"the name of the {what}, {host}, is not found in DNS: {fault.strerror}", SERVER_NAME_NOT_FOUND
        ) from fault
    tried = []
    for *_, sockaddr in found:
        try:
            async with asyncio.timeout(_TIMEOUT_S / (len(found) + 1)):
                return await asyncio.open_connection(str(sockaddr[0]), port)
        except TimeoutError:
            tried.append(f"{sockaddr[0]} does not answer (a firewall may drop the packets)")
        except OSError as fault:
            tried.append(f"{sockaddr[0]}: {os.strerror(fault.errno).lower() if fault.errno else fault}")
    raise _Broken(f"no TCP connection to the {what}: {'; '.join(tried)}", SERVER_UNREACHABLE)


def _behind(proxy: HttpProxy | None) -> str:
    return f" through the {proxy}" if proxy is not None else ""


def _client_context(loaded: LoadedTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=loaded.ca.decode("ascii", "replace"))
    context.set_alpn_protocols(["h2"])
    load_chain(context, loaded.certificate + b"\n" + loaded.key)
    return context


def _own_certificate_fault(loaded: LoadedTls, server_begins: datetime) -> _Broken | None:
    """Returns why the server may have refused our certificate, as far as it can be seen from here; None when it cannot.

    The server has lived at least since `server_begins`, which a clock that stands still or starts anew does not know.
    """
    own = read_pem(loaded.certificate)[0]
    now, begin, end = datetime.now(UTC), own.validity.not_before, own.validity.not_after
    if end < now or end < server_begins:
        known = clock_says(now) if end < now else f"the server's own begins on {date(server_begins)}"
        text = f"this box's certificate expired on {date(end)} ({known}); if it stays so, join again with a new token"
        return _Broken(text, BOX_CERTIFICATE_TIME)
    if begin > now:
        text = f"this box's certificate is not valid before {date(begin)}, and {clock_says(now)}: {SET_IT}"
        return _Broken(text, BOX_CERTIFICATE_TIME)
    if own.issuer_der not in {authority.subject_der for authority in read_pem(loaded.ca)}:
        issuer = name_text(own.issuer_der)
        text = f"the server does not know this box's certificate (unknown ca: it is from {issuer}): join again"
        return _Broken(text, BOX_NOT_ACCEPTED)
    return None


def _begin(writer: asyncio.StreamWriter) -> datetime:
    """Returns when the server's certificate, which was found good, begins."""
    text = writer.get_extra_info("ssl_object").getpeercert()["notBefore"]
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
