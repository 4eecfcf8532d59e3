"""Connects to a real kubelet on this box with the box's own credentials, so that the cloud needs none.

What is carried over the connection is HTTP between the cloud server and the kubelet; nothing of it is looked at here.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from datetime import UTC, datetime
from functools import partial

from edge_agent.config import KubeletConfig
from tunnel.aio.exits.acceptor import Request
from tunnel.aio.identity.certificate import read_own
from tunnel.aio.identity.tls_material import ClientTls, CredentialsUnusable
from tunnel.aio.identity.validity import TIME_FAULTS, clock_says, date
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.aio.sockets.address import is_loopback
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tls_client import dial_tls
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import REAL_KUBELET_UNREACHABLE
from tunnel.core.wire.spoken import spoken_s

_files = BlockingCalls("kubelet files", threads=4)
"""The threads that read the credentials: where the files are is the configuration's choice, and they are read at every
dial."""


class RealKubelet:
    """The service `kubelet` of a box that has a real one."""

    def __init__(self, settings: KubeletConfig) -> None:
        """Takes settings, which may be replaced by others of the same address: they are read for each connection."""
        self.settings = settings

    async def serve(self, request: Request) -> None:
        """Carries a stream to the kubelet.

        Raises:
            StreamError: it cannot be reached, or nobody waits for it any more.
        """
        conn = await dial_kubelet(self.settings, request.deadline_s)
        await request.join(conn, str(self.settings.address))


async def dial_kubelet(settings: KubeletConfig, deadline_s: float) -> Conn:
    """Connects to the kubelet, with both sides authenticated.

    Args:
        settings: where it listens and with which files; read again each time, since kubelet certificates rotate.
        deadline_s: the seconds that all of it may take.

    Raises:
        OpenRefused: the files cannot be used, nobody listens, or the certificate of who listens is not the kubelet's.
    """
    address = settings.address
    try:
        async with asyncio.timeout(deadline_s):
            context = await _files.run(partial(_context, settings))
            return await dial_tls(address.host, address.port, context, handshake_timeout_s=deadline_s)
    except NotAnswering:
        text = (
            f"{settings.client_cert}, {settings.client_key} or {settings.ca} is on a file system that does not answer"
        )
        raise OpenRefused(f"kubelet at {address}: {text}", Code.DEADLINE, REAL_KUBELET_UNREACHABLE) from None
    except TimeoutError:
        raise OpenRefused(
            f"kubelet at {address}: no answer within {spoken_s(deadline_s)}", Code.DEADLINE, REAL_KUBELET_UNREACHABLE
        ) from None
    except CredentialsUnusable as error:
        raise OpenRefused(f"kubelet at {address}: {error}", Code.NO_SERVICE, REAL_KUBELET_UNREACHABLE) from error
    except ssl.SSLCertVerificationError as error:
        text = f"its certificate is not vouched for by {settings.ca}: {error.verify_message}"
        if error.verify_code in TIME_FAULTS:
            text = f"{text}; {clock_says()}"
        raise OpenRefused(f"kubelet at {address}: {text}", Code.UNREACHABLE, REAL_KUBELET_UNREACHABLE) from error
    except ssl.SSLError as error:
        raise OpenRefused(
            f"kubelet at {address}: TLS failed: {error.reason or error}", Code.UNREACHABLE, REAL_KUBELET_UNREACHABLE
        ) from error
    except OSError as error:
        code = Code.REFUSED if error.errno == errno.ECONNREFUSED else Code.UNREACHABLE
        text = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        raise OpenRefused(f"kubelet at {address}: {text}", code, REAL_KUBELET_UNREACHABLE) from error


def _context(settings: KubeletConfig) -> ssl.SSLContext:
    # Loaded once for its checks, whose texts name the file that is at fault.
    loaded = ClientTls(certificate=settings.client_cert, key=settings.client_key, ca=settings.ca).load()
    end, now = read_own(loaded.certificate, loaded.key).validity.not_after, datetime.now(UTC)
    if now >= end:
        raise CredentialsUnusable(f"{settings.client_cert} expired on {date(end)}; {clock_says(now)}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # On loopback the name says nothing: a kubelet's certificate names the node, and only this box can listen there.
    context.check_hostname = not is_loopback(settings.address.host)
    context.load_verify_locations(settings.ca)
    context.load_cert_chain(settings.client_cert, settings.client_key)
    return context
