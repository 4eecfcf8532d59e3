"""The Kubernetes API as a node has it: from the API server while that is reached, else from what is kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from edge_agent.autonomy.answering.answers import away
from edge_agent.autonomy.answering.callers import SCOPE as CALLERS
from edge_agent.autonomy.answering.callers import Callers, bearer_of
from edge_agent.autonomy.answering.kept_answers import PATIENCE_S, KeptAnswers
from edge_agent.autonomy.asks import NODE, RESERVED, SHARED, Scope
from edge_agent.autonomy.kept.disk import Kept
from edge_agent.autonomy.kept.feeds import Feeds, KeptLimits
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.kept.local_endpoints import LocalEndpoints
from edge_agent.autonomy.kept.sharing import SharedReader
from edge_agent.autonomy.moment import Moment
from edge_agent.autonomy.upward.calls import Calls
from edge_agent.autonomy.upward.lines import Lines, NoCredentials
from edge_agent.autonomy.upward.passing import Unreached, ask, ask_whole, give_whole, pass_on
from edge_agent.autonomy.upward.standing import Standing
from edge_agent.autonomy.upward.uplink import Uplink
from edge_agent.autonomy.upward.upstream import Upstream
from edge_agent.autonomy.writing.node_report import SCOPE as OUTAGES
from edge_agent.autonomy.writing.node_report import NodeReport
from edge_agent.autonomy.writing.offline_writes import OfflineWrites
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import HeaderItems, Request
from tunnel.aio.process.tasks import TaskOwner
from tunnel.kubeapi.encoding import JSON_TYPE, decode, encode
from tunnel.kubeapi.request_info import RequestInfo, request_info
from tunnel.kubeapi.status import Json

READS = ("GET", "HEAD")
REVIEWS = frozenset((("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews")))
"""What a kubelet asks about those who come to it."""
MAX_REVIEW_BYTES = 1024 * 1024
Vouch = Callable[[RequestInfo, Request, bytes], Json | None]
"""A function that answers a review, or returns None."""
READY = "/readyz"
LEASES = "/namespaces/kube-node-lease/leases/"
CERTIFICATES = "certificates.k8s.io"


class NodeApi:
    """What answers the node's components."""

    def __init__(
        self,
        node: Lines,
        bare: Lines,
        authority: str,
        folder: Path,
        limits: KeptLimits | None = None,
        shared: SharedReader | None = None,
        on_away: Callable[[str], None] = lambda _words: None,
        vouch: Vouch = lambda _info, _request, _body: None,
    ) -> None:
        """Asks for nothing yet.

        Args:
            node: the connections to the API server with the node's identity.
            bare: those with none.
            authority: the API server's `HOST:PORT`.
            folder: the state folder.
            limits: how much may be kept; None for the default.
            shared: the identity with which lists are followed that several components want; None: there is none.
            on_away: is told that the API server is away and why, and with no words that it is back.
            vouch: answers what the kubelet asks about somebody whom the box knows; None for all others.
        """
        self._vouch = vouch
        self._node = node
        self._bare = bare
        self._node_calls, self._bare_calls = Calls(node), Calls(bare)
        self._authority = authority
        self._on_away = on_away
        self._lease_seen: Moment | None = None
        self.uplink = Uplink(self._probe, self._turned)
        self.standing = Standing(self.uplink, self._look, self._node_turned)
        node.on_answer = self._node_answered
        self.keeper = Keeper(folder)
        self.endpoints = LocalEndpoints(lambda: self.feeds.all)
        self.feeds = Feeds(self.keeper, self._upstream_of, limits or KeptLimits(), self.endpoints.view)
        self.writes = OfflineWrites(
            self.feeds, self.keeper, self.standing, node, authority, self.endpoints.said, self._told
        )
        self.report = NodeReport(self.feeds, self.keeper, self.uplink, self.writes)
        self.callers = Callers(self.keeper, self.uplink, self._post, self.writes.tokens.issued, self._is_here)
        self.shared = shared or SharedReader(None)
        self._kept = KeptAnswers(self.feeds, self.uplink, authority, self.shared, self._node_may)
        self._kept_for_node = KeptAnswers(self.feeds, self.standing, authority, self.shared, self._node_may)
        self._tasks = TaskOwner("API of the node")

    # Public

    @property
    def lease_seen(self) -> datetime | None:
        """Returns when the kubelet asked for its lease or renewed it last; None: not since this process began."""
        return self._lease_seen.shown() if self._lease_seen is not None else None

    async def open(self) -> dict[str, Kept]:
        """Takes what is on the disk, and begins to look for the API server. Returns all that was there."""
        await self.shared.look()
        found = await self.keeper.open()
        self.callers.restore(found.get(CALLERS))
        await self.feeds.open({name: kept for name, kept in found.items() if not name.startswith("!")})
        self.writes.restore(found)
        self.report.restore(found.get(OUTAGES))
        self.endpoints.restored()
        self._tasks.spawn("uplink", self.uplink.run())
        self._tasks.spawn("standing", self.standing.run())
        self._tasks.spawn("replay", self.writes.run())
        self._tasks.spawn("report", self.report.run())
        return found

    async def serve(self, exchange: Exchange, request: Request, *, is_node: bool) -> None:
        """Answers a request. `is_node`: whether it is made with the node's own identity.

        Raises:
            ApiError: the answer is an error.
            HttpError: the request cannot be passed on.
            StreamError: the client is gone.
        """
        await self.uplink.known()
        lines = self._node if is_node else self._bare
        if is_node and LEASES in request.path:
            self._lease_seen = Moment()
        try:
            if any(name.startswith("impersonate-") for name, _ in request.headers):
                token, is_node = None, False  # somebody else is meant, whom only the API server knows
            else:
                token = None if is_node else bearer_of(request.headers.get("authorization"))
            info = request_info(request.method, request.path, request.query)
            if info.group == CERTIFICATES:
                token, is_node = None, False  # they are asked for at the API server, and an old answer is none
            if is_node:
                if request.method == "POST" and (info.group, info.resource) in REVIEWS:
                    await self._review(exchange, request, info)
                    return
                if request.method not in READS and await self.writes.serve(exchange, request, info, lines, NODE):
                    return
                if await self._kept_for_node.serve(exchange, request, info, lines, NODE):
                    return
            if (
                token is not None
                and request.method in READS
                and await self._serve_caller(exchange, request, info, token)
            ):
                return
            if not self.uplink.is_up:
                raise away(self.uplink.words())
            await pass_on(exchange, request, lines, self._authority)
        except Unreached as error:
            if exchange.answered:
                raise
            self.uplink.doubt()
            raise away(f"the API server {self._authority} is not reached: {error}") from error

    def as_json(self) -> Json:
        """Returns how it stands, as the admin API shows it."""
        uplink, writes = self.uplink, self.writes
        return {
            "reached": uplink.is_up,
            "since": uplink.since,
            "reason": uplink.reason or None,
            "scopes": [
                {
                    "name": feed.scope.spoken(),
                    "who": feed.scope.who,
                    "objects": len(feed.replica),
                    "bytes": feed.held_bytes,
                    "complete": feed.is_complete,
                    "live": feed.is_live,
                    "stale_s": round(feed.stale_s, 1),
                    "kept": feed.is_kept,
                    "watchers": feed.watchers,
                    "trouble": feed.trouble or None,
                }
                for feed in self.feeds.all
            ],
            "passed": [scope.spoken() for scope in self.feeds.passed],
            "missing": [
                {"name": scope.spoken(), "who": scope.who, "since": since}
                for scope, since in self.feeds.missing.items()
            ],
            "singles": self.feeds.singles,
            "bytes": self.feeds.held_bytes,
            "node_refused_since": self.standing.refused_since,
            "tokens": len(writes.tokens),
            "waiting": {"statuses": len(writes.statuses), "events": len(writes.events)},
            "waiting_since": {"statuses": writes.statuses.since, "events": writes.events.since},
            "dropped_why": writes.dropped,
            "outages": self.report.as_json(),
            "lease_seen": self.lease_seen,
            "commits": self.keeper.commits,
            "trouble": self.keeper.trouble or self.shared.trouble or None,
        }

    async def aclose(self) -> None:
        """Ends all that is left, and writes what is to be written."""
        self.endpoints.close()
        await self._tasks.aclose()
        await self.feeds.aclose()
        await self.keeper.aclose()
        await self._node_calls.aclose()
        await self._bare_calls.aclose()
        self._node.cut()
        self._bare.cut()

    # Internal

    async def _review(self, exchange: Exchange, request: Request, info: RequestInfo) -> None:
        """Answers the kubelet, which asks who somebody is or what they may."""
        body = await exchange.read_body(MAX_REVIEW_BYTES)
        answer = self._vouch(info, request, body)
        if answer is not None:
            await exchange.respond(201, [JSON_TYPE], encode(answer))
            return
        if not self.uplink.is_up:
            raise away(self.uplink.words())
        head, said = await ask_whole(exchange, request, self._node, self._authority, body, MAX_REVIEW_BYTES)
        await give_whole(exchange, head, said)

    def _told(self) -> None:
        self.report.look()

    async def _serve_caller(self, exchange: Exchange, request: Request, info: RequestInfo, token: str) -> bool:
        """Answers somebody with a token from what is kept, and returns whether it did."""
        user = await self.callers.who(token)
        if user is None or user in RESERVED:
            return False
        may = partial(self._may, token, user)
        return await self._kept.serve(exchange, request, info, self._bare, user, may)

    async def _node_may(self, scope: Scope) -> bool:
        """Returns whether the node may see a scope; while it is refused, what it was seen to be allowed counts."""
        if self.standing.is_refused:
            return self.callers.was_allowed(NODE, scope)
        return await self.callers.may("", NODE, scope)

    async def _may(self, token: str, user: str, scope: Scope) -> bool:
        """Returns whether a token is still its user's, and the user may see a scope."""
        return await self.callers.who(token) == user and await self.callers.may(token, user, scope)

    def _upstream_of(self, who: str) -> Upstream:
        """Returns the API server for an identity: the node's, the agent's own, or a user's with their newest token."""
        if who == NODE:
            return Upstream(self._node_calls, self.standing, self._authority)
        if who == SHARED:
            return Upstream(self._bare_calls, self.uplink, self._authority, self.shared.headers, self.shared.there)
        bearer = self.callers.bearer(who)
        return Upstream(self._bare_calls, self.uplink, self._authority, bearer.headers, bearer.there)

    def _is_here(self, pod_uid: str) -> bool:
        """Returns whether a pod is one of this node."""
        pods = [feed for feed in self.feeds.all if feed.scope.who == NODE and feed.scope.resource == "pods"]
        return any(item.metadata.uid == pod_uid for feed in pods for item in feed.replica.items(lambda _: True))

    async def _post(self, token: str, path: str, content: Json) -> tuple[int, Json]:
        """Posts an object with a token, or as the node without one, and returns the status and the answer.

        Raises:
            Unreached: there is none.
        """
        body = encode(content)
        headers = [
            ("host", self._authority), ("user-agent", "longline"), ("accept", JSON_TYPE[1]), JSON_TYPE,
            *((("authorization", f"Bearer {token}"),) if token else ()), ("content-length", str(len(body))),
        ]  # fmt: skip
        try:
            status, answer = await ask(self._bare if token else self._node, "POST", path, headers, body, PATIENCE_S)
        except Unreached:
            self.uplink.doubt()
            raise
        try:
            said = decode(answer)
        except ValueError:
            said = {}
        return status, said if isinstance(said, dict) else {}

    async def _probe(self) -> None:
        """Asks the API server for anything, and as the node, so that it is known at once whether it takes that.

        Raises:
            OSError: it has no answer.
        """
        try:
            try:
                await self._look()
            except Unreached as error:
                if not isinstance(error.__cause__, NoCredentials):
                    raise
                await ask(self._bare, "GET", READY, self._ours(), b"")
        except Unreached as error:
            raise OSError(error.text) from error

    async def _look(self) -> None:
        await ask(self._node, "GET", READY, self._ours(), b"")

    def _ours(self) -> HeaderItems:
        return [("host", self._authority), ("user-agent", "longline")]

    def _node_answered(self, status: int) -> None:
        if status == 401:
            self._node.renew()  # the kubelet may have another certificate by now
        self.standing.answered(status)

    def _node_turned(self, up: bool) -> None:
        self.endpoints.turned(is_up=up)
        if not up:
            self.feeds.trust_kept(NODE)

    def _turned(self, up: bool) -> None:
        self._on_away("" if up else self.uplink.words())
        self.standing.turned()
        self.report.turned(is_up=up)
        if up:
            self.feeds.miss_nothing()
        else:  # nobody is to wait for what does not come any more
            self.feeds.trust_kept()
            self.callers.away()
            for connections in (self._node, self._bare, self._node_calls, self._bare_calls):
                connections.cut()
