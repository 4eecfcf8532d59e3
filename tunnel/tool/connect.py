"""Asks the CONNECT front end of a server for a target, within one deadline; what follows is carried in relay.py."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from tunnel.aio.sockets.http_proxy import MAX_ANSWER_BYTES, HttpProxy, ProxyUnusable, proxy_for
from tunnel.core.wire.faults import (
    CERTIFICATE_EXPIRED,
    PEER_CERTIFICATE_REFUSED,
    PROXY_REFUSED,
    TARGET_INVALID,
    VIA_INVALID,
    VIA_NO_PROXY,
    VIA_NOT_TRUSTED,
    VIA_REFUSED,
    VIA_SILENT,
    VIA_UNREACHABLE,
    FaultError,
    decoded,
)
from tunnel.core.wire.host_port import split_host_port
from tunnel.core.wire.spoken import printable, spoken_s
from tunnel.tool.wire import PlainWire, TlsWire, Wire

MAX_HEAD_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024
MAX_PORT = 65535
KEEPALIVE_S = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""The options of TCP keep-alive, by which a server that is gone is noticed in a minute. The second is macOS's name of
the first; all are seconds but the last, which is a number."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ?([^\r\n]*)\r\n")
_PRINTABLE = re.compile(r"[!-~]+")


class ConnectFailed(FaultError):
    """There is no connection; the text is for the person at the terminal."""

    default_fault = VIA_UNREACHABLE


class Patience:
    """The time that everything up to the answer may take."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._until_s = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Returns the seconds that are left, for a socket's timeout; never 0, which would mean not to wait at all."""
        return max(0.001, self._until_s - time.monotonic())

    def over(self, name: str) -> ConnectFailed:
        """Returns the error for when the time is used up; `name` is what did not answer."""
        return ConnectFailed(f"{name}: no answer within {spoken_s(self._timeout_s)}", VIA_SILENT)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A connection to a server that was reached."""

    name: str
    """The server's address, as it was asked for."""
    sock: socket.socket
    wire: Wire


@dataclass(frozen=True, slots=True)
class Joined:
    """A connection to a target, which the server has accepted."""

    early: bytes
    """The bytes that came behind the answer."""
    ended: bool
    """Whether the other side has finished behind those bytes."""


def dial_unix(path: Path, patience: Patience, what: str = "[connect] unix") -> Proxy:
    """Connects to the unix socket of a server on this machine.

    Args:
        path: the socket's path.
        patience: the time that it may take.
        what: which setting of the server names the socket, for error texts.

    Raises:
        ConnectFailed: nobody listens there.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ConnectFailed(f"{path}: there are no unix sockets here: write --via HOST:PORT", VIA_INVALID)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(patience.left_s())
    try:
        sock.connect(str(path))
    except TimeoutError:
        sock.close()
        raise patience.over(str(path)) from None
    except OSError as error:
        sock.close()
        # "AF_UNIX path too long" has no number.
        why = os.strerror(error.errno).lower() if error.errno else error
        text = f"cannot connect to {path}: {why}; does the server run, and is this its {what}?"
        raise ConnectFailed(text) from error
    return Proxy(str(path), sock, PlainWire())


def dial_tls(
    address: str,
    context: ssl.SSLContext,
    patience: Patience,
    proxy: str | None = None,
    *,
    what: str = "--via",
    tls_name: str = "",
) -> Proxy:
    """Connects to a TLS listener of a server, through an HTTP proxy where there is one (`http_proxy.proxy_for`).

    Args:
        address: HOST:PORT.
        context: whom to trust, and as whom.
        patience: the time that all of it may take.
        proxy: URL of the HTTP proxy; None: what the environment says.
        what: where the address stands, for error texts.
        tls_name: the name that the certificate must have; "" is the host of the address.

    Raises:
        ConnectFailed: it cannot be reached.
    """
    host, port = split_host_port(address)
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT):
        raise ConnectFailed(f"{what} {address}: write HOST:PORT, or the path of a unix socket", VIA_INVALID)
    try:
        wire = TlsWire(context, tls_name or host)
        through = proxy_for(host, proxy, "--proxy", os.environ)
        hop = (host, int(port)) if through is None else (through.host, through.port)
    except ProxyUnusable as error:
        raise ConnectFailed(error.text, error.fault) from error
    except ValueError as error:  # no host name: empty labels, or longer than names are
        raise ConnectFailed(f"{what} {address}: {host} is no host", VIA_INVALID) from error
    name = address if through is None else f"{address}: the {through}"
    try:
        sock = socket.create_connection(hop, patience.left_s())
    except TimeoutError:
        raise patience.over(name) from None
    except OSError as error:
        raise ConnectFailed(f"cannot connect to {name}: {reason(error)}") from error
    except UnicodeError as error:
        raise ConnectFailed(f"{what} {address}: {host} is no host", VIA_INVALID) from error
    if through is not None:
        try:
            _go_through(through, sock, (host, int(port)), patience)
        except BaseException as error:
            sock.close()
            if isinstance(error, TimeoutError):
                raise patience.over(name) from None
            if isinstance(error, OSError):
                raise ConnectFailed(f"cannot connect through {name}: {reason(error)}") from error
            raise
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(sock)
    return Proxy(address, sock, wire)


def _keep_alive(sock: socket.socket) -> None:
    """Has the system notice a server that vanished: a log that is followed may be silent for hours."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_S.items():
        if (option := getattr(socket, name, None)) is not None:  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _go_through(proxy: HttpProxy, sock: socket.socket, server: tuple[str, int], patience: Patience) -> None:
    """Has an HTTP proxy connect to the server; what follows its answer is the server's.

    Raises:
        ConnectFailed: the proxy refused.
        OSError: the connection to the proxy broke, or it did not answer in time.
    """
    sock.settimeout(patience.left_s())
    sock.sendall(proxy.request(*server))
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_ANSWER_BYTES:
        sock.settimeout(patience.left_s())
        # One byte at a time: behind the head comes TLS, which reads for itself.
        if not (byte := sock.recv(1)):
            break
        head += byte
    if refusal := proxy.refusal(head, *server):
        raise ConnectFailed(refusal, PROXY_REFUSED)


def ask(proxy: Proxy, target: str, patience: Patience, token: str = "") -> Joined:
    """Asks a server for a target; the socket is closed when that fails.

    Args:
        proxy: the server.
        target: what to be connected to.
        patience: the time that the answer may take.
        token: the user's token; "": the certificate says who it is.

    Raises:
        ConnectFailed: it was refused, or there was no answer; the text says why.
    """
    try:
        return _ask(proxy, target, patience, token)
    except BaseException as error:
        proxy.sock.close()
        if isinstance(error, OSError):
            raise failure(proxy, error, patience) from error
        raise


def reason(error: OSError) -> str:
    """Returns an error in the system's or OpenSSL's words: `WRONG_VERSION_NUMBER` becomes a sentence's part."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return (error.strerror or str(error)).lower()


def failure(proxy: Proxy, error: OSError, patience: Patience | None) -> ConnectFailed:
    """Returns what to tell of an error on the connection; `patience` None: nobody waits for an answer any more."""
    from tunnel.aio.identity.validity import TIME_FAULTS, clock_says  # brings the log with it

    match error:
        case TimeoutError() if patience is not None:
            return patience.over(proxy.name)
        case ConnectionError() | ssl.SSLEOFError() if patience is None:
            return ConnectFailed(f"{proxy.name}: the connection broke: {reason(error)}")
        case ssl.SSLCertVerificationError():
            clock = f"; {clock_says()}" if error.verify_code in TIME_FAULTS else ""
            return ConnectFailed(
                f"{proxy.name}: its certificate is not trusted: {error.verify_message}{clock}", VIA_NOT_TRUSTED
            )
        case ssl.SSLError() if "CERTIFICATE_EXPIRED" in (error.reason or ""):
            text = f"your certificate has expired by the server's clock ({clock_says()}): ask for another kubeconfig"
            return ConnectFailed(f"{proxy.name}: {text}", CERTIFICATE_EXPIRED)
        case ssl.SSLEOFError() | ConnectionResetError() | BrokenPipeError():
            return _left(proxy)
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "HTTP_REQUEST"):
            text = "what listens there does not speak TLS; write the address of [connect] listen"
            return ConnectFailed(f"{proxy.name}: {text}", VIA_NO_PROXY)
        case ssl.SSLError() if "ALERT" in (error.reason or ""):
            text = f"the server does not take your certificate ({reason(error)}): use a kubeconfig that it made"
            return ConnectFailed(f"{proxy.name}: {text}", PEER_CERTIFICATE_REFUSED)
        case ssl.SSLError():
            return ConnectFailed(f"TLS with {proxy.name} failed: {reason(error)}")
        case _:
            return ConnectFailed(f"the connection to {proxy.name} broke: {reason(error)}")


def _ask(proxy: Proxy, target: str, patience: Patience, token: str) -> Joined:
    if not _PRINTABLE.fullmatch(target):
        raise ConnectFailed(
            f"{target!r} is no target: write it like box-7:22 or printer.box-7.longline:631", TARGET_INVALID
        )
    shown = f"Proxy-Authorization: Bearer {token}\r\n" if token else ""
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{shown}\r\n".encode()
    _send(proxy, proxy.wire.seal(request), patience)
    head = b""
    ended = False
    while b"\r\n\r\n" not in head:
        if ended:
            raise _left(proxy)
        proxy.sock.settimeout(patience.left_s())
        received = proxy.sock.recv(CHUNK_BYTES)
        try:
            data, ended = proxy.wire.open(received)
        finally:
            _send(proxy, proxy.wire.pending(), patience)
        head += data
        ended = ended or not received
        if len(head) > MAX_HEAD_BYTES:
            raise _no_proxy(proxy)
    status = _STATUS_LINE.match(head)
    if status is None:
        raise _no_proxy(proxy)
    if status[1] == b"405":
        raise _no_proxy(proxy)
    if status[1] != b"200":
        # What it says goes to a terminal.
        text, fault = decoded(printable(status[2].decode("ascii", "replace")))
        text = text or f"{proxy.name}: refused with status {status[1].decode()}"
        raise ConnectFailed(text, fault or VIA_REFUSED)
    return Joined(head.partition(b"\r\n\r\n")[2], ended)


def _send(proxy: Proxy, data: bytes, patience: Patience) -> None:
    if not data:
        return
    proxy.sock.settimeout(patience.left_s())
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it said before tells more
        proxy.sock.sendall(data)


def _left(proxy: Proxy) -> ConnectFailed:
    return ConnectFailed(f"{proxy.name}: the server closed the connection before it answered; its log may say why")


def _no_proxy(proxy: Proxy) -> ConnectFailed:
    return ConnectFailed(
        f"{proxy.name}: the answer is not that of a CONNECT proxy, which is [connect] of the server", VIA_NO_PROXY
    )
