"""Decides what is answered from what is kept, and what by the API server.

While the API server is reached, it answers what must be the newest; when it does not answer in time, what is kept does.
While it is away, what is kept answers, and nothing that is not kept as a whole: a list that is partly there would be
believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from edge_agent.autonomy.answers import FIRST_LIST_S, answer, answer_object, answers_online, away, is_new_enough
from edge_agent.autonomy.asks import NODE, Ask, Scope, named_scope, read_ask
from edge_agent.autonomy.callers import RECHECK_S
from edge_agent.autonomy.feed import Feed
from edge_agent.autonomy.feeds import Feeds, Single
from edge_agent.autonomy.lines import Lines
from edge_agent.autonomy.passing import Otherwise, Unreached, ask_whole, give_whole, pass_on
from edge_agent.autonomy.uplink import Uplink
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import Request, Response
from tunnel.core.wire.errors import StreamError
from tunnel.kubeapi.codecs import CODECS
from tunnel.kubeapi.request_info import RequestInfo
from tunnel.kubeapi.status import ApiError, not_found

PATIENCE_S = 2.5
"""Seconds that the API server may take for what is kept as well."""
MAX_OBJECT_BYTES = 4 * 1024 * 1024
"""The longest answer that is kept as one object. An object has 3 MiB at the most."""

_SINGLES = frozenset((
    ("", "persistentvolumeclaims"), ("", "persistentvolumes"), ("", "serviceaccounts"), ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "volumeattachments"),
))  # fmt: skip
"""What a kubelet asks for one by one, and may not list or watch."""


class KeptAnswers:
    """Answers requests of identities for whom something is kept."""

    def __init__(self, feeds: Feeds, uplink: Uplink, authority: str) -> None:
        """`authority` is the API server's `HOST:PORT`."""
        self._feeds = feeds
        self._uplink = uplink
        self._authority = authority

    async def serve(
        self, exchange: Exchange, request: Request, info: RequestInfo, lines: Lines, who: str, may: May | None = None
    ) -> bool:
        """Answers a request if it reads what is kept, and returns whether it did.

        Args:
            exchange: the client's.
            request: its head.
            info: what it is about.
            lines: the connections to the API server with this identity.
            who: the identity.
            may: tells whether it may list and watch a scope; None: whatever is kept for it is what it may see.

        Raises:
            ApiError: the answer is an error.
            StreamError: the client is gone.
        """
        if request.upgrade:
            return False
        accept = request.headers.get("accept")
        if request.method == "GET":
            ask = read_ask(info, request.query, accept, who, is_node=who == NODE)
            if ask is not None:
                return await self._serve_list(exchange, request, lines, ask, may)
            if may is not None:
                return False  # single objects are passed on
            named = named_scope(info, accept, who)
            if named is not None:
                return await self._serve_object(exchange, request, lines, named)
        elif self._uplink.is_up and _is_single(info) and request.method in ("POST", "PUT", "PATCH"):
            await self._pass_single(exchange, request, lines, info, who)
            return True
        return False

    # Internal

    async def _serve_list(self, exchange: Exchange, request: Request, lines: Lines, ask: Ask, may: May | None) -> bool:
        if may is not None and not await may(ask.scope):
            return False
        if not self._uplink.is_up:
            await self._serve_away(exchange, request, ask, may)
            return True
        feed = self._feeds.find(ask.scope)
        if feed is None and (ask.is_watch or ask.version == "0"):
            feed = self._feeds.want(ask.scope)
        if feed is None:
            return False
        if not feed.is_complete and feed.refused is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LIST_S):
                    await feed.settled()
        if answers_online(ask, feed, exchange.peer) and await is_new_enough(ask, feed):
            await self._answer_while_allowed(exchange, request, ask, feed, may, "")
            return True
        try:
            await pass_on(exchange, request, lines, self._authority, otherwise=_OTHERWISE if feed.is_complete else None)
        except Unreached as error:
            self._uplink.doubt()
            if not feed.is_complete:
                raise
            warning = f"the API server has not answered: {error}"
            await self._answer_while_allowed(exchange, request, ask, feed, may, warning)
        return True

    async def _answer_while_allowed(
        self, exchange: Exchange, request: Request, ask: Ask, feed: Feed, may: May | None, warning: str
    ) -> None:
        """Answers from what is kept. A watch is cut off when its owner may not see that any more."""
        if may is None or not ask.is_watch:
            await answer(exchange, request, ask, feed, warning)
            return
        failure: StreamError | ApiError | None = None

        async def answered() -> None:
            nonlocal failure
            try:
                await answer(exchange, request, ask, feed, warning)
            except (StreamError, ApiError) as error:  # a task group would raise them as a group
                failure = error

        async with asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(answered(), name="answer")
            asking = tasks.create_task(self._allowed(may, ask.scope), name="rights")
            await asyncio.wait({answering, asking}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                exchange.abort()
                answering.cancel()
            asking.cancel()
        if failure is not None:
            raise failure

    async def _allowed(self, may: May, scope: Scope) -> None:
        """Returns when a scope may not be seen any more, which is looked at now and then."""
        while True:
            await asyncio.sleep(RECHECK_S)
            with suppress(StreamError):
                if self._uplink.is_up and not self._uplink.may_be_starting and not await may(scope):
                    return

    async def _serve_away(self, exchange: Exchange, request: Request, ask: Ask, may: May | None) -> None:
        feed = self._feeds.find(ask.scope)
        words = self._uplink.words()
        if feed is None or not feed.is_complete:
            raise away(f"{ask.scope.spoken()} is not kept as a whole on this node, and {words}")
        await self._answer_while_allowed(exchange, request, ask, feed, may, words)

    async def _serve_object(self, exchange: Exchange, request: Request, lines: Lines, named: Scope) -> bool:
        found = self._feeds.object(named)
        if not self._uplink.is_up:
            words = self._uplink.words()
            if found is not None:
                await _give(exchange, named, found[0], words)
                return True
            if self._feeds.is_gone(named):
                raise not_found(named.group, named.resource, named.field_selector.partition("=")[2])
            raise away(f"{named.spoken()} is not kept on this node, and {words}")
        if found is not None and found[1] is not None and found[1].is_live and dict(request.query).get(_VERSION) == "0":
            await _give(exchange, named, found[0], "")
            return True
        try:
            if (named.group, named.resource) in _SINGLES:
                await self._ask_single(exchange, request, lines, named)
            else:
                otherwise = _OTHERWISE if found is not None else None
                await pass_on(exchange, request, lines, self._authority, otherwise=otherwise)
        except Unreached as error:
            self._uplink.doubt()
            if found is None:
                raise
            await _give(exchange, named, found[0], f"the API server has not answered: {error}")
        return True

    async def _ask_single(self, exchange: Exchange, request: Request, lines: Lines, named: Scope) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                head, body = await ask_whole(exchange, request, lines, self._authority, b"", MAX_OBJECT_BYTES)
        except TimeoutError:
            raise Unreached("it does not answer in time") from None
        if not _fits(head):
            raise Unreached(f"it answers {head.status}")
        if head.status == 404:
            await self._feeds.forget(named)
        elif head.status == 200:
            await self._remember(named, head, body)
        await give_whole(exchange, head, body)

    async def _pass_single(
        self, exchange: Exchange, request: Request, lines: Lines, info: RequestInfo, who: str
    ) -> None:
        """Passes on what changes an object that is asked for one by one, and keeps the answer, which is the object."""
        sent = await exchange.read_body(MAX_OBJECT_BYTES)
        head, body = await ask_whole(exchange, request, lines, self._authority, sent, MAX_OBJECT_BYTES)
        named = named_scope(info.reading(), request.headers.get("accept"), who) if info.name else None
        if named is None and head.status in (200, 201):
            named = self._named_by(info, request, who, body)
        if named is not None and head.status in (200, 201):
            await self._remember(named, head, body)
        await give_whole(exchange, head, body)

    def _named_by(self, info: RequestInfo, request: Request, who: str, body: bytes) -> Scope | None:
        """Returns the scope of the object in an answer; None when it cannot be read."""
        for codec in CODECS.values():
            with suppress(ValueError):
                _, _, item = codec.read_object(body)
                return named_scope(info.reading(item.metadata.name), request.headers.get("accept"), who)
        return None

    async def _remember(self, named: Scope, head: Response, body: bytes) -> None:
        if (head.headers.get("content-encoding") or "identity") != "identity":
            return
        codec = next((one for one in CODECS.values() if one.media_type == head.headers.get("content-type")), None)
        if codec is None or codec.name != named.encoding:
            return
        with suppress(ValueError):
            api_version, kind, item = codec.read_object(body)
            await self._feeds.remember(named, Single(api_version, kind, item))


# Internal

_VERSION = "resourceVersion"
May = Callable[[Scope], Awaitable[bool]]


def _is_single(info: RequestInfo) -> bool:
    return (info.group, info.resource) in _SINGLES and not info.subresource


def _fits(head: Response) -> bool:
    """Returns whether an answer is the truth: an API server in trouble is as good as away."""
    return head.status < 500 and head.status != 429


_OTHERWISE = Otherwise(PATIENCE_S, _fits)


async def _give(exchange: Exchange, named: Scope, single: Single, warning: str) -> None:
    await answer_object(exchange, named.codec, single.api_version, single.kind, single.item, warning)
