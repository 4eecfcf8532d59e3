"""The API proxy of a node: between the node's components and the API server, with the identity that each has there.

A client's certificate ends here, with its connection, and cannot be passed on. So a request goes up

1. with the kubelet's own certificate, if the client showed a certificate of that very name: then the API server sees
   the node, with what its authorizer and admission allow to a node, and no more;
2. with that certificate too, if the client is the kubelet, and its own has ended so that it shows none
   (`bare_kubelet`);
3. with the client's bearer token, as it is, and no certificate;
4. with neither, if it came with neither: the API server knows what it tells to anybody.

The box's own operator has a token that counts here alone, and goes up with nothing: see operator_api.

Other certificates, such as an administrator's, are refused: their owner would be somebody else above.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from weakref import WeakKeyDictionary

from edge_agent.autonomy.answering.answers import refuse
from edge_agent.autonomy.answering.bare_kubelet import SCOPE as ENDED
from edge_agent.autonomy.answering.bare_kubelet import BareKubelet
from edge_agent.autonomy.answering.callers import bearer_of
from edge_agent.autonomy.kept.feeds import KeptLimits
from edge_agent.autonomy.kept.sharing import SharedReader
from edge_agent.autonomy.node_api import NodeApi
from edge_agent.autonomy.operator.kubelet_access import KubeletAccess
from edge_agent.autonomy.operator.operator_api import OperatorApi, OperatorSettings
from edge_agent.autonomy.operator.operator_tokens import Operator, OperatorUnknown, is_operator_token, read_token
from edge_agent.autonomy.serving import ServingUnavailable, serving_context
from edge_agent.autonomy.upward.dialling import ApiServer, files
from edge_agent.autonomy.upward.lines import Lines, NoCredentials
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import HttpError, Refusal, Request
from tunnel.aio.http.server import ALPN_PROTOCOLS, HttpServer
from tunnel.aio.identity.certificate import CertificateUnreadable, read_certificate, read_pem
from tunnel.aio.identity.tls_material import CredentialsUnusable
from tunnel.aio.operate.audit import Audit
from tunnel.aio.process.blocking import NotAnswering
from tunnel.aio.process.config import HostPort, ServerAddress
from tunnel.aio.process.parts import PartFailed
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.conn import Conn, TlsPeer
from tunnel.aio.sockets.listener import Listener
from tunnel.kubeapi.encoding import JSON_TYPE, encode
from tunnel.kubeapi.status import ApiError, Cause, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """Where the proxy and the API server are, and whose files stand for this node."""

    addresses: list[HostPort]
    """Those of the proxy."""
    server: ServerAddress
    ca: Path
    """The authority of the API server, which signs the certificates of its clients as well."""
    client_cert: Path
    client_key: Path
    """The kubelet's, read anew for each connection: it rotates them."""
    shared_token: Path | None
    """The token of an identity that may list and watch what several components want; None: each has streams of its
    own.
    """
    limits: KeptLimits
    """How much may be kept."""
    operator: OperatorSettings
    """What somebody on the box may do who has a token of the box."""
    kubelet: ServerAddress
    """Where the kubelet listens, on loopback."""
    kubelet_cgroup: Path
    """The folder of the cgroup of the kubelet's service."""
    grace_s: float
    """Seconds for which the kubelet is believed without a certificate, after its own has ended; 0: never."""


class ApiProxy:
    """The proxy, which serves connections of a listener."""

    def __init__(
        self, name: str, settings: ProxySettings, state: Path, audit: Audit, on_away: Callable[[str], None]
    ) -> None:
        """Dials nothing yet.

        Args:
            name: the box's.
            settings: where the API server is, and as whom it is asked.
            state: the box's state folder.
            audit: takes a record of what the box's operator does.
            on_away: is told that the API server is away and why, and with no words that it is back.
        """
        self._name = name
        self._settings = settings
        self._state = state
        self._authority = str(settings.server)
        self._server = ApiServer(
            address=settings.server, ca=settings.ca, client_cert=settings.client_cert, client_key=settings.client_key
        )
        self._node = Lines(partial(self._dial, as_node=True))
        """Connections that show the kubelet's certificate."""
        self._bare = Lines(partial(self._dial, as_node=False))
        shared = SharedReader(settings.shared_token)
        self._kubelet = KubeletAccess(settings.kubelet, settings.kubelet_cgroup)
        self.api = NodeApi(
            self._node, self._bare, self._authority, state, settings.limits, shared, on_away, self._kubelet.review
        )
        self._operator = OperatorApi(settings.operator, self.api.feeds, self.api.uplink, self._kubelet, audit)
        self._bare_kubelet = BareKubelet(
            settings.client_cert, settings.kubelet_cgroup, settings.grace_s, self.api.keeper
        )
        self._tasks = TaskOwner("API proxy")
        self._opening = asyncio.Lock()
        self._is_open = False
        self._callers: WeakKeyDictionary[Conn, bool] = WeakKeyDictionary()
        """Whether the client of a connection has shown the node's certificate; of none where it showed nothing."""
        self._http = HttpServer(self._serve, _render, self._is_known)

    # Public

    async def open(self, listener: Listener, address: str) -> None:
        """Opens a listener for `handle` at one of the addresses.

        Raises:
            PartFailed: a file cannot be used, or there is no certificate to serve with.
            OSError: the address cannot be listened on.
        """
        async with self._opening:  # what is on the disk is one for all
            try:
                context = await files.run(self._context)
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

    async def withdraw(self) -> None:
        """Takes back what is said of the node for as long as there is a proxy."""
        await self.api.report.withdraw()

    def close(self) -> None:
        """Ends connections to the API server once their requests are over."""
        self._http.drain()
        self._node.close()
        self._bare.close()
        self._kubelet.lines.close()

    async def aclose(self) -> None:
        """Ends all that is left, and writes what is to be written."""
        await self._tasks.aclose()
        await self.api.aclose()
        self._kubelet.lines.cut()

    def as_json(self) -> Json:
        """Returns how it stands, as the admin API shows it."""
        return {**self.api.as_json(), **self._bare_kubelet.as_json()}

    # Internal

    def _context(self) -> ssl.SSLContext:
        hosts = ["127.0.0.1", "::1", "localhost", *(_plain(address.host) for address in self._settings.addresses)]
        try:
            authority = self._settings.ca.read_bytes()
            return serving_context(
                self._state, f"API proxy of {self._name}", list(dict.fromkeys(hosts)), authority, list(ALPN_PROTOCOLS)
            )
        except (OSError, ssl.SSLError, ValueError) as error:
            raise CredentialsUnusable(f"{self._settings.ca} cannot be used: {error}") from error

    async def _dial(self, *, as_node: bool, http2: bool) -> Conn:
        try:
            return await self._server.dial(as_node=as_node, http2=http2)
        except (CredentialsUnusable, NotAnswering) as error:
            raise NoCredentials(str(error)) from error

    def _is_known(self, _peer: TlsPeer) -> bool:
        return True  # the kubelet or a pod of this node; who it is, each request shows

    async def _serve(self, conn: Conn, exchange: Exchange, request: Request) -> None:
        exchange.trust()  # else it would be one of the strangers, whose connections end after some seconds
        try:
            token = bearer_of(request.headers.get("authorization"))
            if token is not None and is_operator_token(token):
                await self._operator.serve(exchange, request, await self._operator_of(token))
                return
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

    async def _operator_of(self, token: str) -> Operator:
        """Returns who has a token of the box's operator.

        Raises:
            ApiError: 401, nobody any more.
        """
        try:
            return await files.run(partial(read_token, self._state, token, datetime.now(UTC)))
        except OperatorUnknown as error:
            raise ApiError(401, error.text, cause=Cause(error.fault.code, error.text)) from error
        except NotAnswering as error:
            raise ApiError(503, str(error)) from error

    async def _shows_node(self, conn: Conn) -> bool:
        """Returns whether a client has shown this node's certificate.

        Raises:
            ApiError: 403, it showed another one.
        """
        is_node = self._callers.get(conn)
        if is_node is None:
            shown = conn.transport.get_extra_info("peercert_der")
            try:
                is_node = bool(shown) and await files.run(partial(self._is_nodes, shown))
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


def _plain(host: str) -> str:
    """Returns a host as certificates name it."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower()


def _says_who(request: Request) -> bool:
    """Returns whether a request itself says whose it is, or whose it is to be."""
    return any(name == "authorization" or name.startswith("impersonate-") for name, _ in request.headers)


def _render(error: HttpError) -> Refusal:
    return Refusal(JSON_TYPE[1], encode(ApiError(error.status, error.text).body()))
