"""The Kubernetes API as a node has it: from the API server while that is reached, else from what is kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edge_agent.autonomy.answers import away
from edge_agent.autonomy.asks import NODE, Scope
from edge_agent.autonomy.callers import SCOPE as CALLERS
from edge_agent.autonomy.callers import Callers, bearer_of
from edge_agent.autonomy.feeds import Feeds, KeptLimits
from edge_agent.autonomy.keeper import Keeper
from edge_agent.autonomy.kept_answers import PATIENCE_S, KeptAnswers
from edge_agent.autonomy.lines import Lines
from edge_agent.autonomy.local_endpoints import LocalEndpoints
from edge_agent.autonomy.offline_writes import OfflineWrites
from edge_agent.autonomy.passing import Unreached, ask, pass_on
from edge_agent.autonomy.uplink import Uplink
from edge_agent.autonomy.upstream import Upstream
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import Request
from tunnel.aio.process.tasks import TaskOwner
from tunnel.kubeapi.encoding import JSON_TYPE, decode, encode
from tunnel.kubeapi.request_info import RequestInfo, request_info
from tunnel.kubeapi.status import Json

READS = ("GET", "HEAD")
LEASES = "/namespaces/kube-node-lease/leases/"


class NodeApi:
    """What answers the node's components."""

    def __init__(
        self,
        node: Lines,
        bare: Lines,
        authority: str,
        folder: Path,
        limits: KeptLimits | None = None,
        on_away: Callable[[str], None] = lambda _words: None,
    ) -> None:
        """Asks for nothing yet.

        Args:
            node: the connections to the API server with the node's identity.
            bare: those with none.
            authority: the API server's `HOST:PORT`.
            folder: the state folder.
            limits: how much may be kept; None for the default.
            on_away: is told that the API server is away and why, and with no words that it is back.
        """
        self._node = node
        self._bare = bare
        self._authority = authority
        self._on_away = on_away
        self.lease_seen: datetime | None = None
        """When the kubelet asked for its node's lease or renewed it last; None: not since this process began."""
        self.uplink = Uplink(self._probe, self._turned)
        self.keeper = Keeper(folder)
        self.endpoints = LocalEndpoints(lambda: self.feeds.all)
        self.feeds = Feeds(self.keeper, self._upstream_of, limits or KeptLimits(), self.endpoints.view)
        self.writes = OfflineWrites(self.feeds, self.keeper, self.uplink, node, authority, self.endpoints.said)
        self.callers = Callers(self.keeper, self.uplink, self._post, self.writes.tokens.issued, self._is_here)
        self._kept = KeptAnswers(self.feeds, self.uplink, authority)
        self._tasks = TaskOwner("API of the node")

    # Public

    async def open(self) -> None:
        """Takes what is on the disk, and begins to look for the API server."""
        found = await self.keeper.open()
        self.callers.restore(found.get(CALLERS))
        await self.feeds.open({name: kept for name, kept in found.items() if not name.startswith("!")})
        self.writes.restore(found)
        self._tasks.spawn("uplink", self.uplink.run())
        self._tasks.spawn("replay", self.writes.run())

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
            self.lease_seen = datetime.now(UTC)
        try:
            if any(name.startswith("impersonate-") for name, _ in request.headers):
                token, is_node = None, False  # somebody else is meant, whom only the API server knows
            else:
                token = None if is_node else bearer_of(request.headers.get("authorization"))
            info = request_info(request.method, request.path, request.query)
            if is_node:
                if request.method not in READS and await self.writes.serve(exchange, request, info, lines, NODE):
                    return
                if await self._kept.serve(exchange, request, info, lines, NODE):
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
            "tokens": len(writes.tokens),
            "waiting": {"statuses": len(writes.statuses), "events": len(writes.events)},
            "dropped": {"statuses": writes.statuses.dropped, "events": writes.events.dropped},
            "lease_seen": self.lease_seen,
            "commits": self.keeper.commits,
            "trouble": self.keeper.trouble or None,
        }

    async def aclose(self) -> None:
        """Ends all that is left, and writes what is to be written."""
        self.endpoints.close()
        await self._tasks.aclose()
        await self.feeds.aclose()
        await self.keeper.aclose()
        self._node.cut()
        self._bare.cut()

    # Internal

    async def _serve_caller(self, exchange: Exchange, request: Request, info: RequestInfo, token: str) -> bool:
        """Answers somebody with a token from what is kept, and returns whether it did."""
        user = await self.callers.who(token)
        if user is None or user == NODE:
            return False
        may = partial(self._may, token, user)
        return await self._kept.serve(exchange, request, info, self._bare, user, may)

    async def _may(self, token: str, user: str, scope: Scope) -> bool:
        """Returns whether a token is still its user's, and the user may see a scope."""
        return await self.callers.who(token) == user and await self.callers.may(token, user, scope)

    def _upstream_of(self, who: str) -> Upstream:
        """Returns the API server for an identity: the node's, or a user's with their newest token."""
        if who == NODE:
            return Upstream(self._node, self.uplink, self._authority)
        bearer = self.callers.bearer(who)
        return Upstream(self._bare, self.uplink, self._authority, bearer.headers, bearer.there)

    def _is_here(self, pod_uid: str) -> bool:
        """Returns whether a pod is one of this node."""
        pods = [feed for feed in self.feeds.all if feed.scope.who == NODE and feed.scope.resource == "pods"]
        return any(item.metadata.uid == pod_uid for feed in pods for item in feed.replica.items(lambda _: True))

    async def _post(self, token: str, path: str, content: Json) -> tuple[int, Json]:
        """Posts an object with a token, and returns the status and the answer.

        Raises:
            Unreached: there is none.
        """
        body = encode(content)
        headers = [
            ("host", self._authority), ("user-agent", "longline"), ("accept", JSON_TYPE[1]), JSON_TYPE,
            ("authorization", f"Bearer {token}"), ("content-length", str(len(body))),
        ]  # fmt: skip
        try:
            status, answer = await ask(self._bare, "POST", path, headers, body, PATIENCE_S)
        except Unreached:
            self.uplink.doubt()
            raise
        try:
            said = decode(answer)
        except ValueError:
            said = {}
        return status, said if isinstance(said, dict) else {}

    async def _probe(self) -> None:
        """Asks the API server for anything.

        Raises:
            OSError: it has no answer.
        """
        headers = [("host", self._authority), ("user-agent", "longline")]
        try:
            await ask(self._bare, "GET", "/readyz", headers, b"")
        except Unreached as error:
            raise OSError(error.text) from error

    def _turned(self, up: bool) -> None:
        self._on_away("" if up else self.uplink.words())
        self.endpoints.turned(is_up=up)
        if up:
            self.feeds.miss_nothing()
        else:  # nobody is to wait for what does not come any more
            self.feeds.trust_kept()
            self.callers.away()
            self._node.cut()
            self._bare.cut()
