"""Dials the API server, with the node's certificate or with none."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunnel.aio.identity.tls_material import ClientTls, CredentialsUnusable
from tunnel.aio.process.blocking import BlockingCalls
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tls_client import dial_tls

HANDSHAKE_S = 10.0
"""Seconds that a connection to the API server may take from its first packet to the end of the handshake."""

files = BlockingCalls("files of the API proxy", threads=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """Where the API server is, and whose files stand for this node."""

    address: ServerAddress
    ca: Path
    """The authority of the API server, which signs the certificates of its clients as well."""
    client_cert: Path
    client_key: Path
    """The kubelet's, read anew for each connection: it rotates them."""

    async def dial(self, *, as_node: bool, http2: bool = False) -> Conn:
        """Returns a connection. `as_node` is whether it shows the node's certificate, and `http2` whether HTTP/2 may be
        spoken on it beside HTTP/1.1.

        Raises:
            CredentialsUnusable: a file cannot be used.
            NotAnswering: the files cannot be read in time.
            OSError: there is no way; ssl.SSLError is one.
        """
        context = await files.run(partial(self._context, as_node=as_node, http2=http2))
        return await dial_tls(self.address.host, self.address.port, context, handshake_timeout_s=HANDSHAKE_S)

    # Internal

    def _context(self, *, as_node: bool, http2: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
        try:
            if as_node:
                ClientTls(certificate=self.client_cert, key=self.client_key, ca=self.ca).load()
                context.load_cert_chain(self.client_cert, self.client_key)
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            raise CredentialsUnusable(f"{self.ca}: {error}") from error
        return context
