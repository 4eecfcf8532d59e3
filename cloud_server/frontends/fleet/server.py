"""The fleet front end: serves clients' requests, from authentication to the answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import structlog

from cloud_server.frontends.fleet import discovery, resources
from cloud_server.frontends.fleet.access import Access
from cloud_server.frontends.fleet.actions import Action, action_of
from cloud_server.frontends.fleet.causes import cause, status_body
from cloud_server.frontends.fleet.credentials import bearer, identify, unauthorized
from cloud_server.frontends.fleet.impersonation import acting, check_as_oneself
from cloud_server.frontends.fleet.interfaces import Agents
from cloud_server.frontends.fleet.kubelet import FRONTEND, KubeletReader
from cloud_server.frontends.fleet.lasting import StandingLost, cut_off, not_allowed_any_more, standing_of
from cloud_server.frontends.fleet.metrics import MetricsApi
from cloud_server.frontends.fleet.mirror import Mirror
from cloud_server.frontends.fleet.pod_limits import PodLimits
from cloud_server.frontends.fleet.pod_names import box_of
from cloud_server.frontends.fleet.proxy import Proxy
from cloud_server.frontends.fleet.reads import Reads
from cloud_server.frontends.fleet.reviews import review
from cloud_server.frontends.fleet.routes import ResourceRequest, parse
from cloud_server.frontends.fleet.usage import UsageReader
from cloud_server.frontends.fleet.watch_sinks import sink_for
from cloud_server.frontends.logins import RefusedLogins
from cloud_server.opens.door import Door
from cloud_server.opens.policy import DoorPolicy
from cloud_server.trust.authenticator import Authenticator, LoginRefused
from cloud_server.trust.caller import Caller
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import HttpError, Refusal, Request
from tunnel.aio.http.long_heads import HeadLimits
from tunnel.aio.http.server import ALPN_PROTOCOLS, HttpServer
from tunnel.aio.operate.admin import PREFIX, Routes, answer
from tunnel.aio.operate.audit import Audit
from tunnel.aio.process.limit_use import LimitUse
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import OpenRefused, StreamError
from tunnel.core.wire.faults import BUG, NO_ISSUER, STANDING_LOST, coded
from tunnel.core.wire.host_port import split_host_port
from tunnel.kubeapi.encoding import JSON_TYPE, decode, encode
from tunnel.kubeapi.negotiation import negotiate
from tunnel.kubeapi.protobuf import MEDIA_TYPE, decode_object
from tunnel.kubeapi.status import ApiError, Json, no_such_path
from tunnel.kubeapi.store import ObjectStore

CERTIFICATES = f"{PREFIX}certificates"
"""The path at which a login is traded for a certificate."""
LOGIN = f"{PREFIX}login"
"""The path at which anybody learns who vouches for the users of this server. `longline login` asks there before it
knows them."""
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
        policy: DoorPolicy,
        authenticator: Authenticator,
        logins: RefusedLogins,
        audit: Audit,
        clock: Callable[[], datetime] = wall_clock,
        admin: Routes | None = None,
        limits: PodLimits = PodLimits(),  # noqa: B008  # immutable
        heads: HeadLimits = HeadLimits(),  # noqa: B008  # immutable
    ) -> None:
        """Makes a server that knows of no agent yet.

        Args:
            agents: all agents.
            door: opens streams to them.
            policy: decides who may do what. The caller must call `rights_changed` when it decides otherwise.
            authenticator: tells who is asking.
            logins: is told of clients that could not show who they are.
            audit: takes the records of what is read.
            clock: the wall clock; versions begin at its microseconds, so that a restarted server counts on upwards.
            admin: the calls about the server itself that users may make, beside the Kubernetes API; None for none.
            limits: what boxes may have of pods.
            heads: what heads of requests may take.
        """
        self._admin = admin
        self._standing = door.standing
        self._authenticator = authenticator
        self._logins = logins
        self._audit = audit
        store = self._store = ObjectStore(int(clock().timestamp() * 1_000_000), history_bytes=limits.history_bytes)
        kubelets = KubeletReader(door, authenticator.server(FRONTEND))
        self._usage = UsageReader(kubelets, clock)
        self._mirror = Mirror(agents, kubelets, store, clock, self._usage.forget, limits)
        self._reads = Reads(self._mirror, store, self._usage, clock)
        self._metrics = MetricsApi(self._mirror, store, self._usage, clock)
        self._access = Access(policy, self._agent_of, self._mirror.names, store)
        self._proxy = Proxy(self._mirror, store, door, self._access)
        self._watches: set[asyncio.Timeout] = set()
        self._draining = False
        self._http = HttpServer(self._serve, _refusal, authenticator.is_user)
        self._http.heads.limit(heads)

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

    def limit(self, limits: PodLimits, heads: HeadLimits) -> None:
        """Holds clients to other limits from now on, and boxes: each when its pods are listed next."""
        self._mirror.limits, self._store.history_bytes = limits, limits.history_bytes
        self._http.heads.limit(heads)

    def use_of_limits(self) -> Iterator[LimitUse]:
        """Yields how much is used of what boxes and clients may have here."""
        yield from self._mirror.use_of_limits()
        yield LimitUse("fleet_history_bytes", self._store.history_bytes, self._store.history_held_bytes)
        heads = self._http.heads
        yield LimitUse("stranger_head_bytes", heads.strangers.total_bytes, heads.strangers.used_bytes)
        yield LimitUse("user_head_bytes", heads.users.total_bytes, heads.users.used_bytes)

    def drain(self) -> None:
        """Asks clients to make their next requests on other connections, and ends their watches.

        Agents go now, and what this server says of them from here on is true of itself only.
        """
        self._draining = True
        self._http.drain()
        now_s = asyncio.get_running_loop().time()
        for watch in self._watches:
            watch.reschedule(now_s)

    def rights_changed(self) -> None:
        """Ends the watches that show more, or less, than what the policy allows now."""
        self._access.changed()

    def relabelled(self, agent: str) -> None:
        """Tells that the operator has set labels of a box.

        Watches that show what they should not, or less than they may, end within a second.
        """
        self._access.relabelled(agent)

    # Internal

    async def _serve(self, conn: Conn, exchange: Exchange, request: Request) -> None:
        """Answers one request."""
        try:
            if self._admin is not None and await self._serve_stranger(exchange, request):
                return
            await self._authenticator.ready_for(bearer(request))
            caller = await self._identify(conn, exchange, request)
            exchange.trust()
            self._access.check_frontend(caller)
            if self._admin is not None and request.path.startswith(PREFIX):
                check_as_oneself(caller, request.headers)
                await self._administer(self._admin, exchange, request, caller)
                return
            caller = await self._acting(caller, conn, exchange, request)
            about = parse(request)
            if about is None:
                await self._serve_path(exchange, request)
                return
            try:
                self._access.check(caller, about)
            except ApiError as error:
                self._record_refused(exchange.peer, caller, action_of(about), error)
                raise
            self._record_read(exchange.peer, caller, about)
            await self._serve_resource(exchange, request, about, caller)
        except StandingLost as lost:
            await self._end(exchange, request, lost)
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

    async def _identify(self, conn: Conn, exchange: Exchange, request: Request) -> Caller:
        try:
            return identify(self._authenticator, conn.tls_peer, request, conn.peer)
        except LoginRefused as refused:
            await self._logins.turn_away(FRONTEND, conn.peer, refused, exchange.wait_lost)
            raise unauthorized(refused) from refused

    async def _acting(self, caller: Caller, conn: Conn, exchange: Exchange, request: Request) -> Caller:
        try:
            return acting(self._access.policy, self._authenticator, caller, request.headers)
        except ApiError as error:
            self._record_refused(conn.peer, caller, Action(verb="impersonate", resource="users"), error)
            raise
        except LoginRefused as refused:
            await self._logins.turn_away(FRONTEND, conn.peer, refused, exchange.wait_lost)
            raise ApiError(403, refused.text, cause=cause(refused.fault)) from refused

    def _agent_of(self, action: Action) -> str:
        """Returns the box that a named object belongs to; empty for one that belongs to none.

        A pod need not be there.
        """
        match action.resource.partition("/")[0]:
            case "nodes" | "leases":
                return action.name
            case "pods":
                return box_of(action.namespace or resources.DEFAULT_NAMESPACE, action.name) or action.name
            case "events":
                return action.name.rsplit(".", 2)[0]
        return ""

    async def _serve_stranger(self, exchange: Exchange, request: Request) -> bool:
        """Answers what is asked on the way to a credential; returns whether it was that."""
        if request.path == LOGIN:
            await _answer(exchange, *_login_document(self._authenticator, request))
            return True
        return request.path == CERTIFICATES and await self._log_in(exchange, request)

    async def _log_in(self, exchange: Exchange, request: Request) -> bool:
        """Answers whoever wants a certificate for a login; returns whether one was shown. It opens nothing else."""
        assert self._admin is not None
        try:
            login = self._authenticator.by_login(bearer(request))
        except LoginRefused as refused:
            await self._logins.turn_away(FRONTEND, exchange.peer, refused, exchange.wait_lost)
            raise unauthorized(refused) from refused
        if login is None:
            return False
        exchange.trust()
        check_as_oneself(login.caller, request.headers)
        await answer(self._admin, exchange, request, login.caller.principal, exchange.peer, {"login": login})
        return True

    async def _administer(self, routes: Routes, exchange: Exchange, request: Request, caller: Caller) -> None:
        limits = {"until": caller.until, "scope": caller.scope}

        answering = answer(routes, exchange, request, caller.principal, exchange.peer, limits)
        if request.method not in ("GET", "HEAD"):  # a change that was begun is carried out and recorded
            await answering
            return

        def objection(now: Caller) -> OpenRefused | None:
            decision = self._access.observing(now)
            return None if decision.allowed else not_allowed_any_more(f"by rule {decision.rule}")

        async with standing_of(self._standing, caller, objection):
            await answering

    async def _end(self, exchange: Exchange, request: Request, lost: StandingLost) -> None:
        """Ends a request whose caller may not go on with it."""
        who, why = lost.caller.principal, lost.why
        self._audit.record(
            "taken_away", frontend=FRONTEND, kind=who.kind.label, who=who.name, proof=who.proof, peer=exchange.peer,
            method=request.method, path=request.path, code=why.fault.code, reason=why.code.label, text=str(why),
        )  # fmt: skip
        error = ApiError(403 if why.fault is STANDING_LOST else 401, coded(str(why), why.fault), cause=cause(why.fault))
        if not exchange.answered:
            await _answer(exchange, status_body(error), error.code)
        elif request.upgrade is not None:  # a browser's watch: its connection is no exchange any more
            exchange.abort()
        elif request.path.startswith(PREFIX):
            await cut_off(exchange, encode({"error": {"code": why.fault.code, "text": str(why)}}))
        else:
            await cut_off(exchange, encode({"type": "ERROR", "object": status_body(error)}))

    def _record_refused(self, peer: str, caller: Caller, action: Action, error: ApiError) -> None:
        """Records what a caller may not do at any box. What goes on to one has a record of its own."""
        who = caller.principal
        self._audit.record_folded(
            "refused",
            (who.name, who.proof, action.verb, action.group, action.resource, error.code),
            frontend=FRONTEND,
            kind=who.kind.label,
            who=who.name,
            proof=who.proof,
            peer=split_host_port(peer)[0],
            verb=action.verb,
            group=action.group,
            resource=action.resource,
            namespace=action.namespace,
            name=action.name,
            status=error.code,
            text=error.message,
        )

    def _record_read(self, peer: str, caller: Caller, about: ResourceRequest) -> None:
        """Records what is read, but not each object of it; the same read again and again becomes one record."""
        if about.verb not in _READS or about.resource.subresource:
            return
        who, what = caller.principal, about.resource
        self._audit.record_folded(
            "read",
            (who.name, who.proof if caller.by is not None else "", about.verb, what.group, what.name, about.namespace),
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
            watching = self._reads.watch(sink, about, accept, self._access.sight(caller), self._access.following)
            try:
                async with self._while_allowed(caller, about):
                    await sink.run(self._until_drained(watching))
            finally:
                watching.close()  # it may not have begun
        else:
            async with self._while_allowed(caller, about):
                await _answer(exchange, *await self._document_of(exchange, request, about, caller))

    def _while_allowed(self, caller: Caller, about: ResourceRequest) -> AbstractAsyncContextManager[None]:
        def objection(now: Caller) -> OpenRefused | None:
            try:
                self._access.check(now, about)
            except ApiError as error:
                return not_allowed_any_more(error.message)
            return None

        return standing_of(self._standing, caller, objection)

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
        self, exchange: Exchange, request: Request, about: ResourceRequest, caller: Caller
    ) -> tuple[Json, int]:
        """Returns a whole answer and its status."""
        accept = request.headers.get("accept")
        sight = self._access.sight(caller)
        match about.verb, about.resource.group:
            case "list", resources.METRICS_GROUP:
                return await self._metrics.page(about, accept, sight), 200
            case "get", resources.METRICS_GROUP:
                return await self._metrics.get(about, accept, sight), 200
            case "list", _:
                return await self._reads.page(about, accept, sight), 200
            case "get", _:
                return await self._reads.get(about, accept, sight), 200
        body = await _read_object(exchange, request)
        return review(about.resource.kind, body, caller, self._access), 201


def _refusal(error: HttpError) -> Refusal:
    """Returns the answer to what is no request, or too long for one."""
    return Refusal(JSON_TYPE[1], encode(status_body(ApiError(error.status, error.text))))


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


def _login_document(authenticator: Authenticator, request: Request) -> tuple[Json, int]:
    if request.method != "GET":
        raise ApiError(405, f"{request.method} is not allowed on {LOGIN}", details={})
    if authenticator.login_document is None:
        text = "this server takes no ID tokens ([oidc]): ask its operator for a kubeconfig"
        raise ApiError(404, text, cause=cause(NO_ISSUER))
    return dict(authenticator.login_document), 200


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
