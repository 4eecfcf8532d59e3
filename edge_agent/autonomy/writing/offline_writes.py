"""Answers what components of the node write while the API server is away. Nothing gets a 2xx that would be lost.

| request | answer |
|---|---|
| status of the own node and its pods | taken: 202, shown at once, told when the API server is back (statuses) |
| new events | taken: 202, written when the API server is back (events) |
| changed events | 404, at which client-go writes the event anew (client-go v0.34 `tools/record`, recordEvent) |
| a token for a pod | the one that was got before for the same request (tokens), or 503 |
| the own node | 409 when it is known, which a kubelet takes for having registered before |
| the node's lease | 503; when it came is noted, since it shows that the kubelet is alive |
| all else | 503, with the reason and since when |
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from edge_agent.autonomy.answering.answers import away
from edge_agent.autonomy.asks import NODE, named_scope
from edge_agent.autonomy.kept.disk import Kept
from edge_agent.autonomy.kept.feeds import Feeds
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.upward.lines import Lines
from edge_agent.autonomy.upward.passing import Unreached, ask, ask_whole, give_whole
from edge_agent.autonomy.upward.uplink import Way
from edge_agent.autonomy.writing.events import SCOPE as EVENTS
from edge_agent.autonomy.writing.events import Events
from edge_agent.autonomy.writing.statuses import SCOPE as STATUSES
from edge_agent.autonomy.writing.statuses import Statuses, is_status_patch
from edge_agent.autonomy.writing.tokens import SCOPE as TOKENS
from edge_agent.autonomy.writing.tokens import Tokens, is_token_request
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import Request
from tunnel.core.wire.errors import StreamError
from tunnel.kubeapi.codecs import JSON, PROTOBUF
from tunnel.kubeapi.encoding import decode
from tunnel.kubeapi.request_info import RequestInfo
from tunnel.kubeapi.status import ApiError, Json, about, not_found

MAX_BODY_BYTES = 3 * 1024 * 1024
"""The longest body that is taken; the API server takes as much (apiserver v0.34, MaxRequestBodyBytes)."""
MAX_ANSWER_BYTES = 1024 * 1024
RETRY_S = 5.0
"""Seconds after which what waits is told again when that failed."""

OnPod = Callable[[str, Json, Json | None], None]
"""A function that is told of a pod: its uid, its status, and the patch of the kubelet that the API server has answered
with it; None when all of it is the kubelet's."""

_log = structlog.get_logger("edge.autonomy")


class OfflineWrites:
    """What was written while the API server was away."""

    def __init__(
        self,
        feeds: Feeds,
        keeper: Keeper,
        uplink: Way,
        lines: Lines,
        authority: str,
        on_pod: OnPod = lambda _uid, _status, _patch: None,
        on_told: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        feeds: what is kept.
        keeper: the disk.
        uplink: the way to the API server, as the node has it.
        lines: the connections to it with the node's identity.
        authority: its `HOST:PORT`.
        on_pod: is told what the kubelet says of a pod: its uid, its status, and the patch that said it.
        on_told: is called when all that waited was told.
        """
        self._feeds = feeds
        self._uplink = uplink
        self._lines = lines
        self._authority = authority
        self._on_pod = on_pod
        self._on_told = on_told
        self._queued = asyncio.Event()
        self.tokens, self.events, self.statuses = Tokens(keeper), Events(keeper), Statuses(keeper)

    # Public

    def restore(self, found: Mapping[str, Kept]) -> None:
        """Takes what was on the disk. The scopes must be there already."""
        self.tokens.restore(found.get(TOKENS))
        self.events.restore(found.get(EVENTS))
        self.statuses.restore(found.get(STATUSES))
        for feed in self._feeds.all:
            if feed.is_complete:
                self.statuses.show(feed)
        for uid, status in self.statuses.of_pods():
            self._on_pod(uid, status, None)

    async def serve(self, exchange: Exchange, request: Request, info: RequestInfo, lines: Lines, who: str) -> bool:
        """Answers a request that writes, if that is not the API server's alone, and returns whether it did.

        Raises:
            ApiError: the answer is an error.
            StreamError: the client is gone, or the API server has not answered.
        """
        if self._uplink.is_up:
            return await self._serve_online(exchange, request, info, lines)
        if is_status_patch(info):
            await self._patch(exchange, request, info, who)
        elif is_token_request(info):
            await self._token(exchange, request, info)
        elif info.resource == "events" and info.verb == "create":
            await self._event(exchange, request)
        elif info.resource == "events" and info.verb == "patch":
            raise not_found(info.group, "events", info.name)
        elif info.resource == "nodes" and info.verb == "create":
            await self._register(exchange, request, info, who)
        else:
            return False
        return True

    @property
    def told(self) -> dict[str, int]:
        """Returns how much was told late, by kind."""
        return {"statuses": self.statuses.refusals.told, "events": self.events.refusals.told}

    @property
    def dropped(self) -> dict[str, Counter[str]]:
        """Returns by kind how much was accepted and dropped later, by why."""
        kinds = {"statuses": self.statuses.refusals, "events": self.events.refusals}
        return {kind: Counter(refusals.dropped) for kind, refusals in kinds.items()}

    def wake(self) -> None:
        """Takes that something was queued."""
        self._queued.set()

    async def run(self) -> None:
        """Tells the API server what it does not know whenever it is back, until it is cancelled."""
        while True:
            await self._uplink.back()
            self._queued.clear()
            waiting = len(self.events) + len(self.statuses)
            try:
                await self._caught_up()
                await self.statuses.replay(self.send)
                await self.events.replay(self.send)
            except StreamError as error:
                _log.info("not all could be told to the API server yet", reason=error.text)
                await asyncio.sleep(RETRY_S)
                continue
            if waiting:
                _log.info("the API server was told what has happened meanwhile", told=waiting)
                self._on_told()
            # Something may be queued just when the API server is back, by a request that came before.
            await self._queued.wait()

    async def send(self, method: str, path: str, content_type: str, body: bytes) -> int:
        """Sends a request with the node's identity, and returns the status of its answer.

        Raises:
            StreamError: there is none.
        """
        headers = [
            ("host", self._authority), ("user-agent", "longline"), ("accept", JSON.media_type),
            ("content-type", content_type), ("content-length", str(len(body))),
        ]  # fmt: skip
        status, _ = await ask(self._lines, method, path, headers, body)
        return status

    # Internal

    async def _serve_online(self, exchange: Exchange, request: Request, info: RequestInfo, lines: Lines) -> bool:
        if is_status_patch(info):
            await self._pass_status(exchange, request, info, lines)
            return True
        if not is_token_request(info):
            return False
        sent = await exchange.read_body(MAX_BODY_BYTES)
        head, body = await ask_whole(exchange, request, lines, self._authority, sent, MAX_ANSWER_BYTES)
        self._check_standing(head.status)
        await self.tokens.note(info, request, sent, head, body)
        await give_whole(exchange, head, body)
        return True

    async def _pass_status(self, exchange: Exchange, request: Request, info: RequestInfo, lines: Lines) -> None:
        """Passes on what the kubelet says of its node or a pod. The answer is the object with it."""
        sent = await exchange.read_body(MAX_BODY_BYTES)
        async with self.statuses.lock(info):
            await self.statuses.tell(info, self.send)
            head, body = await ask_whole(exchange, request, lines, self._authority, sent, MAX_BODY_BYTES)
            self._check_standing(head.status)
            if head.status == 200:
                await self.statuses.superseded(info)
        if (
            info.resource == "pods"
            and head.status == 200
            and (head.headers.get("content-type") or "").startswith(JSON.media_type)
        ):
            with suppress(ValueError):
                self._tell_pod(decode(body), decode(sent))
        await give_whole(exchange, head, body)

    def _check_standing(self, status: int) -> None:
        """Checks that an answer is not the first by which the node's credentials are refused.

        Raises:
            ApiError: 503, it is; the kubelet asks again, and has its answer from what is kept.
        """
        if status == 401 and not self._uplink.is_up:
            raise away(self._uplink.words())

    def _tell_pod(self, pod: object, patch: object) -> None:
        if isinstance(pod, dict):
            metadata, status = pod.get("metadata"), pod.get("status")
            uid = metadata.get("uid") if isinstance(metadata, dict) else None
            if isinstance(uid, str) and isinstance(status, dict):
                self._on_pod(uid, status, patch if isinstance(patch, dict) else None)

    async def _patch(self, exchange: Exchange, request: Request, info: RequestInfo, who: str) -> None:
        if any(name == "dryRun" for name, _ in request.query):
            raise away(f"nothing can be tried out, and {self._uplink.words()}")
        body = await exchange.read_body(MAX_BODY_BYTES)
        content_type = (request.headers.get("content-type") or "").partition(";")[0].strip()
        named = named_scope(info.reading(), JSON.media_type, who)
        async with self.statuses.lock(info):
            single, feed = (self._feeds.object(named) if named is not None else None) or (None, None)
            if single is None or feed is None:
                raise away(f"{info.resource}/{info.name} is not kept on this node, and {self._uplink.words()}")
            item = await self.statuses.patch(info, request.raw_path, content_type, body, single.item, feed)
        self._queued.set()
        if info.resource == "pods":
            self._tell_pod(decode(item.raw), None)
        answered = JSON.whole_object(single.api_version, single.kind, item)
        await exchange.respond(202, [("content-type", JSON.media_type), self._kept()], answered)

    async def _token(self, exchange: Exchange, request: Request, info: RequestInfo) -> None:
        sent = await exchange.read_body(MAX_BODY_BYTES)
        found = self.tokens.find(info, request, sent)
        if found is None:
            what = f"no token of ServiceAccount {info.namespace}/{info.name} for this pod"
            raise away(f"{what} is kept, and {self._uplink.words()}")
        await exchange.respond(201, [("content-type", found.content_type), self._kept()], found.body)

    async def _event(self, exchange: Exchange, request: Request) -> None:
        body = await exchange.read_body(MAX_BODY_BYTES)
        content_type = request.headers.get("content-type") or JSON.media_type
        codec = PROTOBUF if content_type.startswith(PROTOBUF.media_type) else JSON
        try:
            name = codec.name_of(body)
        except ValueError as error:
            raise ApiError(400, f"the event cannot be read: {error}") from error
        if trouble := await self.events.add(request.raw_path, content_type, name, body):
            raise away(f"an event cannot be kept ({trouble}), and {self._uplink.words()}")
        self._queued.set()
        await exchange.respond(202, [("content-type", codec.media_type), self._kept()], body)

    async def _register(self, exchange: Exchange, request: Request, info: RequestInfo, who: str) -> None:
        body = await exchange.read_body(MAX_BODY_BYTES)
        protobuf = (request.headers.get("content-type") or "").startswith(PROTOBUF.media_type)
        with suppress(ValueError):
            name = (PROTOBUF if protobuf else JSON).name_of(body)
            named = named_scope(info.reading(name), JSON.media_type, who)
            if named is not None and self._feeds.object(named) is not None:
                raise ApiError(409, f'nodes "{name}" already exists', "AlreadyExists", about("", "nodes", name))
        raise away(f"the node is not kept, and {self._uplink.words()}")

    def _kept(self) -> tuple[str, str]:
        return "warning", '299 longline "kept on the node: the API server is away"'

    async def _caught_up(self) -> None:
        """Waits until the watches of nodes and pods go on, so that what is told is no older than what they bring.

        Raises:
            StreamError: the API server is away again.
        """
        wanted = [
            feed
            for feed in self._feeds.all
            if feed.is_complete and feed.scope.who == NODE and feed.scope.resource in ("nodes", "pods")
        ]
        while any(not feed.is_live and feed.refused is None for feed in wanted):
            if not self._uplink.is_up:
                raise Unreached("it is away again")
            await asyncio.sleep(0.1)
