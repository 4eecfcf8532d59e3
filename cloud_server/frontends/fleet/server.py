"""The fleet front end: serves clients' requests, from authentication to the answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog

from cloud_server.frontends.fleet import discovery, resources
from cloud_server.frontends.fleet.causes import status_body
from cloud_server.frontends.fleet.credentials import identify
from cloud_server.frontends.fleet.interfaces import Agents, User
from cloud_server.frontends.fleet.kubelet import FRONTEND, KubeletReader
from cloud_server.frontends.fleet.metrics import MetricsApi
from cloud_server.frontends.fleet.mirror import Mirror
from cloud_server.frontends.fleet.proxy import Proxy
from cloud_server.frontends.fleet.reads import Reads
from cloud_server.frontends.fleet.reviews import review
from cloud_server.frontends.fleet.rights import AUTHENTICATED, Action, decide
from cloud_server.frontends.fleet.routes import ResourceRequest, parse
from cloud_server.frontends.fleet.usage import UsageReader
from cloud_server.frontends.fleet.watch_sinks import sink_for
from cloud_server.frontends.http.exchange import Exchange
from cloud_server.frontends.http.server import ALPN_PROTOCOLS, HttpServer
from cloud_server.frontends.logins import RefusedLogins
from cloud_server.opens.door import Door
from cloud_server.trust.authenticator import Authenticator
from cloud_server.trust.caller import Caller
from tunnel.aio.operate.admin import PREFIX, Routes, answer
from tunnel.aio.operate.audit import Audit
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.http1 import HttpError, Request
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.faults import BUG
from tunnel.core.wire.host_port import split_host_port
from tunnel.kubeapi.encoding import JSON_TYPE, decode, encode
from tunnel.kubeapi.negotiation import negotiate
from tunnel.kubeapi.protobuf import MEDIA_TYPE, decode_object
from tunnel.kubeapi.status import ApiError, Json, no_such_path
from tunnel.kubeapi.status import about as details_of
from tunnel.kubeapi.store import ObjectStore

MAX_BODY_BYTES = 64 * 1024
"""The largest body that is read: reviews are all that is taken."""
_DISCOVERY = {"APIGroupDiscoveryList": ("apidiscovery.k8s.io", ("v2", "v2beta1"))}
_FIRST_ASKED = re.compile(r"/(api|apis|version|openapi/.*)/?")
_READS = ("get", "list", "watch")
_HEALTH_PATHS = ("/healthz", "/livez", "/readyz")
_BODY_TYPES: dict[str, Callable[[bytes], object]] = {JSON_TYPE[1]: decode, MEDIA_TYPE: decode_object}
_PLAIN = ("content-type", "text/plain; charset=utf-8")

log = structlog.get_logger(__name__)


def wall_clock() -> datetime:
    """Returns the date and time now, for people and ages."""
    return datetime.now(UTC)


class FleetServer:
    """The server of the Kubernetes API subset: `run` follows the agents, `handle` serves a connection."""

    def __init__(
        self,
        agents: Agents,
        door: Door,
        authenticator: Authenticator,
        logins: RefusedLogins,
        audit: Audit,
        clock: Callable[[], datetime] = wall_clock,
        admin: Routes | None = None,
    ) -> None:
        """Makes a server that has seen nothing yet.

        Args:
            agents: all of them.
            door: opens streams to them.
            authenticator: tells who is asking.
            logins: is told of clients that could not say who they are.
            audit: takes the records of what is read.
            clock: the wall clock; versions begin at its microseconds, so that a restarted server counts on upwards.
            admin: what users may ask of the server itself, beside the Kubernetes API; None means nothing.
        """
        self._admin = admin
        self._authenticator = authenticator
        self._logins = logins
        self._audit = audit
        store = ObjectStore(int(clock().timestamp() * 1_000_000))
        kubelets = KubeletReader(door, authenticator.server(FRONTEND))
        self._usage = UsageReader(kubelets, clock)
        self._mirror = Mirror(agents, kubelets, store, clock, self._usage.forget)
        self._reads = Reads(self._mirror, store, self._usage, clock)
        self._metrics = MetricsApi(self._mirror, store, self._usage, clock)
        self._proxy = Proxy(self._mirror, store, door)
        self._watches: set[asyncio.Timeout] = set()
        self._draining = False
        self._http = HttpServer(self._serve, _refusal, lambda uri: authenticator.by_certificate(uri, "") is not None)

    # Public

    @property
    def alpn_protocols(self) -> Sequence[str]:
        """Returns the protocols that its listener is to offer in the TLS handshake."""
        return ALPN_PROTOCOLS

    async def run(self) -> None:
        """Follows the registry of agents until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._usage.run(), name="fleet usage")
            tasks.create_task(self._mirror.run(), name="fleet mirror")

    async def handle(self, conn: Conn) -> None:
        """Serves a connection to its end."""
        await self._http.handle(conn)

    def drain(self) -> None:
        """Asks clients to make their next requests on other connections, and ends their watches.

        Agents go now, and what this server says of them from here on is true of itself only.
        """
        self._draining = True
        self._http.drain()
        now_s = asyncio.get_running_loop().time()
        for watch in self._watches:
            watch.reschedule(now_s)

    # Internal

    async def _serve(self, conn: Conn, exchange: Exchange, request: Request) -> None:
        """Answers one request."""
        try:
            caller = self._identify(conn, request)
            exchange.trust()
            if self._admin is not None and request.path.startswith(PREFIX):
                await self._administer(self._admin, exchange, request, caller)
                return
            about = parse(request)
            if about is None:
                await self._serve_path(exchange, request)
                return
            _check_allowed(_user(caller), about)
            self._record_read(exchange.peer, caller, about)
            await self._serve_resource(exchange, request, about, caller)
        except HttpError as error:
            if exchange.answered:
                raise
            await _answer(exchange, status_body(ApiError(error.status, error.text)), error.status)
        except ApiError as error:
            await _refuse(exchange, request, error)
        except StreamError:
            raise
        except Exception:
            log.exception(
                "fleet.request_failed", code=BUG.code, peer=conn.peer, method=request.method, path=request.path
            )
            if exchange.answered:
                exchange.abort()
                return
            failure = ApiError(500, "this server failed to answer the request; its log says why")
            await _answer(exchange, status_body(failure), failure.code)

    def _identify(self, conn: Conn, request: Request) -> Caller:
        try:
            return identify(self._authenticator, conn.tls_peer, request)
        except ApiError as error:
            if error.code == 401:
                self._logins.refused(FRONTEND, conn.peer, "no certificate of a user, and no token that is known")
            raise

    async def _administer(self, routes: Routes, exchange: Exchange, request: Request, caller: Caller) -> None:
        scope = caller.scope
        limits = {"until": caller.until, "scope": _scope(scope.frontends, scope.agents, scope.verbs)}
        await answer(routes, exchange, request, caller.principal, exchange.peer, limits)

    def _record_read(self, peer: str, caller: Caller, about: ResourceRequest) -> None:
        """Records what is read, but not each object of it; the same read again and again becomes one record."""
        if about.verb not in _READS or about.resource.subresource:
            return
        who, what = caller.principal, about.resource
        self._audit.record_folded(
            "read",
            (who.name, about.verb, what.group, what.name, about.namespace),
            frontend=FRONTEND,
            kind=who.kind.label,
            who=who.name,
            proof=who.proof,
            peer=split_host_port(peer)[0],
            verb=about.verb,
            group=what.group,
            resource=what.name,
            namespace=about.namespace,
        )

    async def _serve_path(self, exchange: Exchange, request: Request) -> None:
        if request.method not in ("GET", "HEAD"):
            raise ApiError(405, f"{request.method} is not allowed on {request.path}", details={})
        path = request.path.rstrip("/")
        if path in _HEALTH_PATHS:
            await exchange.respond(200, [_PLAIN], b"ok")
            return
        if path == "/openapi/v2":
            await exchange.respond(200, [("content-type", discovery.OPENAPI_V2_TYPE)])
            return
        body, content_type = _document(path, request)
        await exchange.respond(200, [("content-type", content_type)], encode(body))

    async def _serve_resource(
        self, exchange: Exchange, request: Request, about: ResourceRequest, caller: Caller
    ) -> None:
        accept = request.headers.get("accept")
        if about.resource.subresource:
            await self._proxy.serve(exchange, request, about, caller)
        elif about.verb == "watch":
            sink = sink_for(exchange, request)
            watching = self._reads.watch(sink, about, accept)
            try:
                await sink.run(self._until_drained(watching))
            finally:
                watching.close()  # it may not have begun
        else:
            await _answer(exchange, *await self._document_of(exchange, request, about, _user(caller)))

    async def _until_drained(self, watching: Awaitable[None]) -> None:
        limit = asyncio.timeout(0 if self._draining else None)
        self._watches.add(limit)
        try:
            async with limit:
                await watching
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._watches.discard(limit)

    async def _document_of(
        self, exchange: Exchange, request: Request, about: ResourceRequest, user: User
    ) -> tuple[Json, int]:
        """Returns a whole answer and its status."""
        accept = request.headers.get("accept")
        match about.verb, about.resource.group:
            case "list", resources.METRICS_GROUP:
                return await self._metrics.page(about, accept), 200
            case "get", resources.METRICS_GROUP:
                return await self._metrics.get(about, accept), 200
            case "list", _:
                return self._reads.page(about, accept), 200
            case "get", _:
                return await self._reads.get(about, accept), 200
        body = await _read_object(exchange, request)
        return review(about.resource.kind, body, user), 201


def _refusal(error: HttpError) -> tuple[str, bytes]:
    """Returns the content type and body of the answer to what is no request, or too long for one."""
    return JSON_TYPE[1], encode(status_body(ApiError(error.status, error.text)))


async def _refuse(exchange: Exchange, request: Request, error: ApiError) -> None:
    if error.code == 403 and _FIRST_ASKED.fullmatch(request.path):
        # kubectl begins with these, and prints `unknown` for a Status there: it looks for text.
        await exchange.respond(error.code, [_PLAIN], error.message.encode())
    else:
        await _answer(exchange, status_body(error), error.code)


async def _answer(exchange: Exchange, body: Json, status: int = 200) -> None:
    await exchange.respond(status, [JSON_TYPE], encode(body))


async def _read_object(exchange: Exchange, request: Request) -> Json:
    media_type = (request.headers.get("content-type") or JSON_TYPE[1]).partition(";")[0].strip().lower()
    parse_body = _BODY_TYPES.get(media_type)
    if parse_body is None:
        raise ApiError(415, f"a body of type {media_type} is not taken here: only {', '.join(_BODY_TYPES)}")
    try:
        body = parse_body(await exchange.read_body(MAX_BODY_BYTES))
    except ValueError as error:
        raise ApiError(400, f"the body cannot be read: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not an object")
    return body


def _user(caller: Caller) -> User:
    """Returns the user that asks, in the words of the Kubernetes API."""
    return User(caller.name, (AUTHENTICATED, *caller.principal.groups))


def _scope(*limits: frozenset[str] | None) -> Json:
    """Returns the limits of a credential as the admin API shows them."""
    shown = [sorted(limit) if limit is not None else None for limit in limits]
    return dict(zip(("frontends", "agents", "verbs"), shown, strict=True))


def _check_allowed(user: User, about: ResourceRequest) -> None:
    resource = about.resource
    details = details_of(resource.group, resource.name, about.name)
    if about.verb not in resource.verbs:
        offered = ", ".join(resource.verbs)
        text = f"the server does not allow {about.verb} on {resource.name}, only {offered}: {resource.origin}"
        raise ApiError(405, text, details=details)
    action = Action(
        verb=about.verb, group=resource.group, resource=resource.name, namespace=about.namespace, name=about.name
    )
    decision = decide(user, action)
    if not decision.allowed:
        text = f'user "{user.name}" may not {about.verb} {resource.name}: {decision.reason}'
        raise ApiError(403, text, details=details)


def _document(path: str, request: Request) -> tuple[Json, str]:
    """Returns a discovery document and its content type."""
    if path in ("/api", "/apis"):
        accepted = negotiate(request.headers.get("accept"), _DISCOVERY)
        if accepted.kind:
            content_type = discovery.AGGREGATED_TYPE.format(version=accepted.version)
            return discovery.aggregated(path == "/api", accepted.version), content_type
        return (discovery.api_versions() if path == "/api" else discovery.api_group_list()), JSON_TYPE[1]
    match path.strip("/").split("/"):
        case ["version"]:
            return discovery.version_document(request.headers.get("user-agent")), JSON_TYPE[1]
        case ["api", version]:
            return discovery.api_resource_list("", version), JSON_TYPE[1]
        case ["apis", group]:
            return discovery.api_group(group), JSON_TYPE[1]
        case ["apis", group, version]:
            return discovery.api_resource_list(group, version), JSON_TYPE[1]
        case ["openapi", "v3", *rest]:
            from cloud_server.frontends.fleet import openapi  # few servers are ever asked

            return (openapi.document("/".join(rest)) if rest else openapi.index()), JSON_TYPE[1]
    raise no_such_path()
