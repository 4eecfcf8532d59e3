"""Decides what is answered from what is kept, and what by the API server.

While the API server is reached, it answers what must be the newest; when it does not answer in time, what is kept does.
While it is away, what is kept answers, and nothing that is not kept as a whole: a list that is partly there would be
believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from edge_agent.autonomy.answering.answers import (
    FIRST_LIST_S,
    answer,
    answer_object,
    answers_online,
    away,
    client_of,
    is_new_enough,
)
from edge_agent.autonomy.asks import NODE, Ask, Scope, named_scope, read_ask
from edge_agent.autonomy.kept.feed import Feed
from edge_agent.autonomy.kept.feeds import Feeds, Single
from edge_agent.autonomy.kept.sharing import SharedReader, part_of, shared_scope
from edge_agent.autonomy.upward.lines import Lines
from edge_agent.autonomy.upward.passing import Otherwise, Unreached, ask_whole, give_whole, pass_on
from edge_agent.autonomy.upward.uplink import Way
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import Headers, Request, Response
from tunnel.core.wire.errors import StreamError
from tunnel.kubeapi.codecs import CODECS
from tunnel.kubeapi.request_info import RequestInfo
from tunnel.kubeapi.status import ApiError, not_found

PATIENCE_S = 2.5
"""Seconds that the API server may take for what is kept as well."""
LOOK_S = 10.0
"""Seconds after which it is looked at whether somebody may still see what they watch. What was asked within the last
RECHECK_S (callers) is not asked again, so that a right that is taken counts after both together at the most.
"""
MAX_OBJECT_BYTES = 4 * 1024 * 1024
"""The longest answer that is kept as one object. An object has 3 MiB at the most."""

_SINGLES = frozenset((
    ("", "persistentvolumeclaims"), ("", "persistentvolumes"), ("", "serviceaccounts"), ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "volumeattachments"),
))  # fmt: skip
"""What a kubelet asks for one by one, and may not list or watch."""
_LEASES = ("coordination.k8s.io", "leases")
"""What is never kept, so that nothing is missing where it is not there."""


class KeptAnswers:
    """Answers requests of identities for whom something is kept."""

    def __init__(self, feeds: Feeds, uplink: Way, authority: str, shared: SharedReader, node_may: May) -> None:
        """Answers nothing yet.

        Args:
            feeds: what is kept.
            uplink: the way to the API server, as these identities have it.
            authority: the API server's `HOST:PORT`.
            shared: the identity with which lists are followed that several components want.
            node_may: tells whether the node may list and watch a scope, for what was listed by that identity.
        """
        self._feeds = feeds
        self._uplink = uplink
        self._authority = authority
        self._shared = shared
        self._node_may = node_may
        self._otherwise = Otherwise(PATIENCE_S, self._fits)

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
        is_up, feed = self._uplink.is_up, None
        shared = await self._shared_feed(ask, may)
        if shared is not None:
            ask, feed, may = shared
        else:
            feed = await self._followed(ask.scope, ask)
        if not is_up:
            await self._serve_away(exchange, request, ask, feed, may)
            return True
        if feed is None:
            return False
        if answers_online(ask, feed, client_of(exchange, ask)) and await is_new_enough(ask, feed):
            await self._answer_while_allowed(exchange, request, ask, feed, may, "")
            return True
        try:
            otherwise = self._otherwise if feed.is_complete else None
            await pass_on(exchange, request, lines, self._authority, otherwise=otherwise)
        except Unreached as error:
            self._uplink.doubt()
            if not feed.is_complete:
                raise
            warning = f"the API server has not answered: {error}"
            await self._answer_while_allowed(exchange, request, ask, feed, may, warning)
        return True

    async def _shared_feed(self, ask: Ask, may: May | None) -> tuple[Ask, Feed, May] | None:
        """Returns the scope that is followed for all components and shows what is asked for, with how to read it, and
        who says that it may be; None when there is none, or it cannot be used.
        """
        whole = shared_scope(ask.scope)
        if whole is None or (part := part_of(ask)) is None:
            return None
        if not self._shared.is_usable and ((known := self._feeds.find(whole)) is None or not known.is_complete):
            return None
        if may is None and not await self._node_may(ask.scope):
            return None
        feed = await self._followed(whole, ask)
        if feed is None or not feed.is_complete or feed.refused is not None:
            return None
        await self._feeds.retire(ask.scope)
        return part, feed, may or self._node_may

    async def _followed(self, scope: Scope, ask: Ask) -> Feed | None:
        """Returns a scope once it is complete or cannot be; it is followed from now on if the API server can be asked.
        None when it is not followed.
        """
        feed = self._feeds.find(scope)
        if not self._uplink.is_up:
            return feed
        if feed is None and (ask.is_watch or ask.version == "0"):
            feed = self._feeds.want(scope)
        if feed is not None and not feed.is_complete and feed.refused is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LIST_S):
                    await feed.settled()
        return feed

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
            await asyncio.sleep(LOOK_S)
            with suppress(StreamError):
                if self._uplink.is_up and not self._uplink.may_be_starting and not await may(scope):
                    return

    async def _serve_away(
        self, exchange: Exchange, request: Request, ask: Ask, feed: Feed | None, may: May | None
    ) -> None:
        words = self._uplink.words()
        if feed is None or not feed.is_complete:
            self._feeds.miss(ask.scope)
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
            if (named.group, named.resource) != _LEASES:
                self._feeds.miss(named)
            raise away(f"{named.spoken()} is not kept on this node, and {words}")
        if found is not None and found[1] is not None and found[1].is_live and dict(request.query).get(_VERSION) == "0":
            await _give(exchange, named, found[0], "")
            return True
        try:
            if (named.group, named.resource) in _SINGLES:
                await self._ask_single(exchange, request, lines, named)
            else:
                otherwise = self._otherwise if found is not None else None
                await pass_on(exchange, request, lines, self._authority, otherwise=otherwise)
        except Unreached as error:
            self._uplink.doubt()
            if found is None:
                raise
            await _give(exchange, named, found[0], f"the API server has not answered: {error}")
        return True

    def _fits(self, head: Response) -> bool:
        """Returns whether an answer is the truth: an API server in trouble is as good as away, and so is one that does
        not take the node's credentials.
        """
        return head.status < 500 and head.status != 429 and (head.status != 401 or self._uplink.is_up)

    async def _ask_single(self, exchange: Exchange, request: Request, lines: Lines, named: Scope) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                asked = _in_type(request, named.codec.media_type)
                head, body = await ask_whole(exchange, asked, lines, self._authority, b"", MAX_OBJECT_BYTES)
        except TimeoutError:
            raise Unreached("it does not answer in time") from None
        if not self._fits(head):
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
        accept = request.headers.get("accept")
        like = named_scope(info.reading("any"), accept, who)
        asked = _in_type(request, like.codec.media_type) if like is not None else request
        head, body = await ask_whole(exchange, asked, lines, self._authority, sent, MAX_OBJECT_BYTES)
        named = like if info.name else None
        if named is None and head.status in (200, 201):
            named = self._named_by(info, accept, who, body)
        if named is not None and head.status in (200, 201):
            await self._remember(named, head, body)
        await give_whole(exchange, head, body)

    def _named_by(self, info: RequestInfo, accept: str | None, who: str, body: bytes) -> Scope | None:
        """Returns the scope of the object in an answer; None when it cannot be read."""
        for codec in CODECS.values():
            with suppress(ValueError):
                _, _, item = codec.read_object(body)
                return named_scope(info.reading(item.metadata.name), accept, who)
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


def _in_type(request: Request, media_type: str) -> Request:
    """Returns a request with which the API server answers in the encoding that is kept, of those that its client takes:
    a kubelet would rather have Protobuf, and what is its own is kept in JSON.
    """
    headers = Headers([*(item for item in request.headers if item[0] != "accept"), ("accept", media_type)])
    return replace(request, headers=headers)


async def _give(exchange: Exchange, named: Scope, single: Single, warning: str) -> None:
    await answer_object(exchange, named.codec, single.api_version, single.kind, single.item, warning)
