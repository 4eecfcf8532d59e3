"""Which hop is broken when a dial failed: DNS, TCP, proxy, TLS or HTTP/2, in one line that says what to do.

gRPC says little more than "unavailable", and its server closes the connection without a TLS alert when it rejects a
client's certificate. So the same way is walked again with Python's own TLS and the same certificates.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from cryptography import x509

from tunnel.aio.identity.tls_material import ClientTls, CredentialsUnusable, LoadedTls
from tunnel.aio.sockets.address import split_address

_TIMEOUT_S = 5.0
_FIRST_BYTES_S = 2.0
"""Wait for the server's HTTP/2 settings, which follow its handshake; silence for so long means that it accepted us."""
_MAX_PROXY_ANSWER_BYTES = 8192

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def diagnose(address: str, tls: ClientTls, proxy: str | None) -> str:
    """Walk to the server and say in one line which hop is broken and what to do.

    Args:
        address: as dialled.
        tls: as dialled.
        proxy: as in DialOptions: a URL, "none", or None for the environment.
    """
    return await find_fault(address, tls, proxy) or "name, TCP, TLS and HTTP/2 are in order: try again"


async def find_fault(address: str, tls: ClientTls, proxy: str | None) -> str | None:
    """As `diagnose`, but None when no hop is broken."""
    try:
        host, port = split_address(address)
        loaded = await asyncio.to_thread(tls.load)
        walk = _Walk(host=host, port=port, loaded=loaded, proxy=_proxy_for(host, proxy))
        async with asyncio.timeout(_TIMEOUT_S):
            await walk.check()
    except _Broken as fault:
        return str(fault)
    except (ValueError, CredentialsUnusable) as fault:
        return str(fault)
    except TimeoutError:
        return f"no answer within {_TIMEOUT_S:g} s (TCP or TLS): a firewall may drop the packets"
    except OSError as fault:
        return f"connection broke: {fault.strerror or fault}"
    return None


# Internal


class _Broken(Exception):
    """A hop is broken; the text is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    host: str
    port: int
    loaded: LoadedTls
    proxy: str | None

    async def check(self) -> None:
        """Raises _Broken at the first hop that is."""
        try:
            context = await asyncio.to_thread(_client_context, self.loaded)
            async with self._connected(context) as (reader, writer):
                await self._check_http2(reader, writer)
        except ssl.SSLCertVerificationError as fault:
            raise _Broken(await self._server_certificate_fault(fault)) from fault
        except ssl.SSLError as fault:
            raise _Broken(self._tls_fault(fault)) from fault
        except ConnectionError as fault:
            raise _Broken("the server closed the connection during the TLS handshake; does it speak TLS?") from fault

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
            return await _open_tcp(self.host, self.port, "server")
        parts = urlsplit(self.proxy)
        if parts.hostname is None:
            raise _Broken("the HTTP proxy's address cannot be read")
        reader, writer = await _open_tcp(parts.hostname, parts.port or 80, "HTTP proxy")
        try:
            await _ask_proxy(reader, writer, self.host, self.port, self.proxy)
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    async def _check_http2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        alpn = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        if alpn != "h2":
            raise _Broken("the server speaks TLS but not HTTP/2: another service listens there, or a TLS proxy between")
        # In TLS 1.3 our side of the handshake is done before the server has seen our certificate.
        try:
            async with asyncio.timeout(_FIRST_BYTES_S):
                first = await reader.read(1)
        except TimeoutError:
            return
        except ssl.SSLError as fault:
            raise _Broken(_own_certificate_fault(self.loaded) or self._tls_fault(fault)) from fault
        except ConnectionError:
            first = b""
        if not first:
            raise _Broken(
                _own_certificate_fault(self.loaded)
                or "the server does not accept this box's certificate (its log says why): join again"
            )

    def _tls_fault(self, fault: ssl.SSLError) -> str:
        reason = (fault.reason or str(fault)).upper()
        if "ALERT" in reason:
            told = reason.rpartition("ALERT_")[2].replace("_", " ").lower()
            return f"the server does not accept this box's certificate ({told}): join again"
        if "WRONG_VERSION_NUMBER" in reason or "HTTP_REQUEST" in reason or "RECORD_LAYER" in reason:
            return f"what listens on port {self.port} does not speak TLS"
        return f"TLS failed: {reason.replace('_', ' ').lower()}"

    async def _server_certificate_fault(self, fault: ssl.SSLCertVerificationError) -> str:
        certificate = await self._server_certificate()
        names = ", ".join(_host_names(certificate)) if certificate else ""
        match fault.verify_code:
            case 62 | 64:
                return f"name of the server is not in its certificate: {self.host}; it has {names or 'none'}"
            case 10 if certificate:
                return f"the server's certificate expired on {_date(certificate.not_valid_after_utc)}"
            case 9 if certificate:
                begin = _date(certificate.not_valid_before_utc)
                return f"the server's certificate is not valid before {begin}: check this box's clock ({_date(_now())})"
            case 18 | 19 | 20 | 21:
                issuer = certificate.issuer.rfc4514_string() if certificate else "an unknown authority"
                return f"this box does not trust the server's certificate, which is from {issuer}: join again?"
        return f"the server's certificate is not accepted: {fault.verify_message}"

    async def _server_certificate(self) -> x509.Certificate | None:
        """The certificate that was not accepted; looked at, never trusted."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        try:
            async with self._connected(context) as (_, writer):
                der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        except (OSError, _Broken):
            return None
        return x509.load_der_x509_certificate(der) if der else None


async def _open_tcp(host: str, port: int, what: str) -> _Streams:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as fault:
        raise _Broken(f"the name of the {what}, {host}, is not found in DNS: {fault.strerror}") from fault
    tried = []
    for *_, sockaddr in found:
        try:
            async with asyncio.timeout(_TIMEOUT_S / (len(found) + 1)):
                return await asyncio.open_connection(str(sockaddr[0]), port)
        except TimeoutError:
            tried.append(f"{sockaddr[0]} does not answer (a firewall may drop the packets)")
        except OSError as fault:
            tried.append(f"{sockaddr[0]}: {os.strerror(fault.errno).lower() if fault.errno else fault}")
    raise _Broken(f"no TCP connection to the {what} on port {port}: {'; '.join(tried)}")


async def _ask_proxy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, proxy: str
) -> None:
    parts = urlsplit(proxy)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {b64encode(user.encode()).decode()}")
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as fault:
        raise _Broken(f"{parts.hostname}:{parts.port} does not answer as an HTTP proxy") from fault
    status = head[:_MAX_PROXY_ANSWER_BYTES].split(b"\r\n", 1)[0].decode("latin-1")
    words = status.split(" ", 2)
    if len(words) < 2 or words[1] != "200":
        shown = "".join(c if c.isprintable() else "?" for c in " ".join(words[1:]))
        raise _Broken(f"the HTTP proxy {parts.hostname}:{parts.port} refuses CONNECT {target}: {shown[:120]}")


def _proxy_for(host: str, proxy: str | None) -> str | None:
    if proxy == "none":
        return None
    # gRPC reads these three, in this order, in lower case only.
    found = (os.environ.get(name) for name in ("grpc_proxy", "https_proxy", "http_proxy"))
    chosen = proxy or next((value for value in found if value), None)
    exceptions = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or ""  # noqa: SIM112  # as gRPC reads it
    return None if _is_exception(host, exceptions) else chosen


def _is_exception(host: str, exceptions: str) -> bool:
    for entry in filter(None, map(str.strip, exceptions.split(","))):
        if host.lower().endswith(entry.lower()):
            return True
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
    return False


def _client_context(loaded: LoadedTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=loaded.ca.decode("ascii", "replace"))
    context.set_alpn_protocols(["h2"])
    with _in_memory_file(loaded.key + b"\n" + loaded.certificate) as path:
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def _in_memory_file(content: bytes) -> Iterator[str]:
    """A path for an API that takes only paths; the key never touches a disk."""
    with os.fdopen(os.memfd_create("longline-diagnose"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _own_certificate_fault(loaded: LoadedTls) -> str | None:
    """What can be seen from here of why the server may have refused our certificate."""
    own = x509.load_pem_x509_certificates(loaded.certificate)[0]
    if own.not_valid_after_utc < _now():
        return f"this box's certificate expired on {_date(own.not_valid_after_utc)}: join again"
    if own.not_valid_before_utc > _now():
        begin = _date(own.not_valid_before_utc)
        return f"this box's certificate is not valid before {begin}: check this box's clock ({_date(_now())})"
    authorities = x509.load_pem_x509_certificates(loaded.ca)
    if own.issuer not in {authority.subject for authority in authorities}:
        issuer = own.issuer.rfc4514_string()
        return f"the server does not know this box's certificate (unknown ca: it is from {issuer}): join again"
    return None


def _host_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _date(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
