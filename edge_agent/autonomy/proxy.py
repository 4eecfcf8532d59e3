"""The API proxy of a node: between the node's components and the API server, with the identity that each has there.

A client's certificate ends here, with its connection, and cannot be passed on. So a request goes up

1. with the kubelet's own certificate, if the client showed a certificate of that very name: then the API server sees
   the node, with what its authorizer and admission allow to a node, and no more;
2. with that certificate too, if the client is the kubelet, and its own has ended so that it shows none
   (`bare_kubelet`);
3. with the client's bearer token, as it is, and no certificate;
4. with neither, if it came with neither: the API server knows what it tells to anybody.

Other certificates, such as an administrator's, are refused: their owner would be somebody else above.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

from edge_agent.autonomy.answers import refuse
from edge_agent.autonomy.bare_kubelet import SCOPE as ENDED
from edge_agent.autonomy.bare_kubelet import BareKubelet
from edge_agent.autonomy.feeds import KeptLimits
from edge_agent.autonomy.lines import Lines, NoCredentials
from edge_agent.autonomy.node_api import NodeApi
from edge_agent.autonomy.serving import ServingUnavailable, serving_context
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import HttpError, Refusal, Request
from tunnel.aio.http.server import ALPN_PROTOCOLS, HttpServer
from tunnel.aio.identity.certificate import CertificateUnreadable, read_certificate, read_pem
from tunnel.aio.identity.tls_material import ClientTls, CredentialsUnusable
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.process.parts import PartFailed
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.conn import Conn, TlsPeer
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.tls_client import dial_tls
from tunnel.kubeapi.encoding import JSON_TYPE, encode
from tunnel.kubeapi.status import ApiError, Json

HANDSHAKE_S = 10.0
"""Seconds that a connection to the API server may take from its first packet to the end of the handshake."""

_files = BlockingCalls("files of the API proxy", threads=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """Where the API server is, and whose files stand for this node."""

    server: ServerAddress
    ca: Path
    """The authority of the API server, which signs the certificates of its clients as well."""
    client_cert: Path
    client_key: Path
    """The kubelet's, read anew for each connection: it rotates them."""
    limits: KeptLimits
    """How much may be kept."""
    kubelet_cgroup: Path
    """The folder of the cgroup of the kubelet's service."""
    grace_s: float
    """Seconds for which the kubelet is believed without a certificate, after its own has ended; 0: never."""


class ApiProxy:
    """The proxy, which serves connections of a listener."""

    def __init__(self, name: str, settings: ProxySettings, state: Path, on_away: Callable[[str], None]) -> None:
        """Dials nothing yet.

        Args:
            name: the box's.
            settings: where the API server is, and as whom it is asked.
            state: the box's state folder.
            on_away: is told that the API server is away and why, and with no words that it is back.
        """
        self._name = name
        self._settings = settings
        self._state = state
        self._authority = str(settings.server)
        self._node = Lines(partial(self._dial, as_node=True))
        """Connections that show the kubelet's certificate."""
        self._bare = Lines(partial(self._dial, as_node=False))
        self.api = NodeApi(self._node, self._bare, self._authority, state, settings.limits, on_away)
        self._bare_kubelet = BareKubelet(
            settings.client_cert, settings.kubelet_cgroup, settings.grace_s, self.api.keeper
        )
        self._tasks = TaskOwner("API proxy")
        self._is_open = False
        self._callers: WeakKeyDictionary[Conn, bool] = WeakKeyDictionary()
        """Whether the client of a connection has shown the node's certificate; of none where it showed nothing."""
        self._http = HttpServer(self._serve, _render, self._is_known)

    # Public

    async def open(self, listener: Listener, address: str) -> None:
        """Opens a listener for `handle`.

        Raises:
            PartFailed: a file cannot be used, or there is no certificate to serve with.
            OSError: the address cannot be listened on.
        """
        try:
            context = await _files.run(partial(self._context, address))
        except (ServingUnavailable, CredentialsUnusable, NotAnswering) as error:
            raise PartFailed(str(error), error.fault) from error
        if not self._is_open:
            found = await self.api.open()
            self._bare_kubelet.restore(found.get(ENDED))
            self._tasks.spawn("end of the kubelet's certificate", self._bare_kubelet.run())
            self._is_open = True
        await listener.listen_tcp(address, context)

    async def handle(self, conn: Conn) -> None:
        """Serves a connection to its end.

        Raises:
            StreamError: the connection broke.
        """
        await self._http.handle(conn)

    def close(self) -> None:
        """Ends connections to the API server once their requests are over."""
        self._http.drain()
        self._node.close()
        self._bare.close()

    async def aclose(self) -> None:
        """Ends all that is left, and writes what is to be written."""
        await self._tasks.aclose()
        await self.api.aclose()

    def as_json(self) -> Json:
        """Returns how it stands, as the admin API shows it."""
        return {**self.api.as_json(), **self._bare_kubelet.as_json()}

    # Internal

    def _context(self, address: str) -> ssl.SSLContext:
        hosts = ["127.0.0.1", "::1", "localhost", address.rpartition(":")[0].strip("[]")]
        try:
            authority = self._settings.ca.read_bytes()
            return serving_context(
                self._state, f"API proxy of {self._name}", list(dict.fromkeys(hosts)), authority, list(ALPN_PROTOCOLS)
            )
        except (OSError, ssl.SSLError, ValueError) as error:
            raise CredentialsUnusable(f"{self._settings.ca} cannot be used: {error}") from error

    async def _dial(self, *, as_node: bool) -> Conn:
        address = self._settings.server
        try:
            context = await _files.run(partial(self._upward, as_node=as_node))
        except (CredentialsUnusable, NotAnswering) as error:
            raise NoCredentials(str(error)) from error
        return await dial_tls(address.host, address.port, context, handshake_timeout_s=HANDSHAKE_S)

    def _upward(self, *, as_node: bool) -> ssl.SSLContext:
        """Returns the context of a connection to the API server. Blocks."""
        settings = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            if as_node:
                ClientTls(certificate=settings.client_cert, key=settings.client_key, ca=settings.ca).load()
                context.load_cert_chain(settings.client_cert, settings.client_key)
            context.load_verify_locations(settings.ca)
        except (OSError, ssl.SSLError) as error:
            raise CredentialsUnusable(f"{settings.ca}: {error}") from error
        return context

    def _is_known(self, _peer: TlsPeer) -> bool:
        return True  # whoever can reach the listener is on this node

    async def _serve(self, conn: Conn, exchange: Exchange, request: Request) -> None:
        exchange.trust()  # else it would be one of the strangers, whose connections end after some seconds
        try:
            is_node = await self._shows_node(conn) or (
                not _says_who(request) and self._shows_nothing(conn) and await self._bare_kubelet.is_it(conn)
            )
            await self.api.serve(exchange, request, is_node=is_node)
        except HttpError as error:
            if exchange.answered:
                raise
            await refuse(exchange, ApiError(error.status, error.text))
        except ApiError as error:
            await refuse(exchange, error)

    async def _shows_node(self, conn: Conn) -> bool:
        """Returns whether a client has shown this node's certificate.

        Raises:
            ApiError: 403, it showed another one.
        """
        is_node = self._callers.get(conn)
        if is_node is None:
            shown = conn.transport.get_extra_info("peercert_der")
            try:
                is_node = bool(shown) and await _files.run(partial(self._is_nodes, shown))
            except NotAnswering as error:
                raise ApiError(503, str(error)) from error
            if shown and not is_node:
                raise ApiError(
                    403,
                    "the API proxy of a node passes on the node's own certificate and bearer tokens; use the API"
                    " server's own address with other certificates",
                )
            self._callers[conn] = is_node
        return is_node

    def _shows_nothing(self, conn: Conn) -> bool:
        return not conn.transport.get_extra_info("peercert_der")

    def _is_nodes(self, shown: bytes) -> bool:
        try:
            own = read_pem(self._settings.client_cert.read_bytes())[0]
            return read_certificate(shown).subject_der == own.subject_der
        except (OSError, CertificateUnreadable):
            return False


def _says_who(request: Request) -> bool:
    """Returns whether a request itself says whose it is, or whose it is to be."""
    return any(name == "authorization" or name.startswith("impersonate-") for name, _ in request.headers)


def _render(error: HttpError) -> Refusal:
    return Refusal(JSON_TYPE[1], encode(ApiError(error.status, error.text).body()))
