"""Answers lists, watches and single objects from what is kept, as an API server answers them from its watch cache.

The rules are those of apiserver v0.34 (`pkg/storage/cacher`). What they leave to the freshest state goes to the API
server while it is reached; while it is away the state that is kept is the freshest there is, and the answer says so.
"""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import Callable
from contextlib import suppress

from edge_agent.autonomy.asks import Ask
from edge_agent.autonomy.kept.feed import Feed
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.gone import unless_gone
from tunnel.aio.http.http1 import HeaderItems, Request
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.spoken import printable
from tunnel.kubeapi.codecs import Codec
from tunnel.kubeapi.encoding import JSON_TYPE, encode
from tunnel.kubeapi.history import Change
from tunnel.kubeapi.list_options import EXACT, NOT_OLDER, check_list_options, check_watch_options, too_new
from tunnel.kubeapi.replica import Event, Item, event_of, version_of
from tunnel.kubeapi.status import ApiError, Cause, expired, invalid
from tunnel.kubeapi.store import Key

NEWER_WAIT_S = 3.0
"""Seconds that a request waits until what is kept is as new as it wants it, as an API server lets it wait (the cacher's
`blockTimeout`); the API server is asked then.
"""
FIRST_LIST_S = 10.0
"""Seconds that a request waits for the first list of its scope."""
GZIP_BYTES = 128 * 1024
"""The size from which an answer is packed for those who take it, as an API server does."""
BOOKMARK_S = 60.0
"""Seconds between two bookmarks of a watch."""
LAST_BOOKMARK_S = 2.0
"""Seconds before its end that a watch gets one more."""
MAX_WARNING_CHARS = 300
AT_A_TIME = 64
"""How many changes a watch is sent before others have their turn."""


def answers_online(ask: Ask, feed: Feed, client: str) -> bool:
    """Returns whether a request is answered from what is kept although the API server is reached.

    What must be the newest state, and pages, are the API server's own; so is a watch that goes on from before what is
    remembered here, which the API server may remember.
    """
    if feed.refused is not None or not feed.is_complete:
        return False
    if ask.is_watch:
        return ask.initial_events or not _is_number(ask.version) or not _has_forgotten(feed, ask, client)
    if ask.more or _is_exact(ask) or ask.match not in ("", NOT_OLDER):
        return False
    # Where objects are shown otherwise than the API server has them, the newest state is the one that is shown.
    return ask.version != "" or feed.is_altered


async def is_new_enough(ask: Ask, feed: Feed) -> bool:
    """Returns whether a scope is as new as a request wants it, which is waited for a moment.

    A watch that begins with the newest state, and names no version, is answered from a stream that runs: it is as far
    behind as the link is slow. A watch that goes on from a version waits by itself.
    """
    if not ask.is_watch and not ask.version:
        return True  # it is answered here only where that is the newest
    if ask.is_watch and not ask.version:
        return await _within(lambda: feed.is_live)
    if not _is_number(ask.version) or (ask.is_watch and not ask.initial_events):
        return True
    wanted = version_of(ask.version)
    return await _within(lambda: (feed.replica.version or 0) >= wanted)


async def answer(exchange: Exchange, request: Request, ask: Ask, feed: Feed, warning: str) -> None:
    """Answers a list or a watch of a complete scope.

    Args:
        exchange: the client's.
        request: its head.
        ask: what it asks for.
        feed: its scope.
        warning: what the client is told of the answer's age; empty while the API server is reached.

    Raises:
        ApiError: the request makes no sense, or asks for a version that is not here.
        StreamError: the client is gone.
    """
    _check(ask)
    if not feed.is_complete:  # it was closed just now
        raise away(f"{ask.scope.spoken()} is not kept any more")
    headers = _warned(warning)
    if ask.is_watch:
        await _watch(exchange, ask, feed, headers, is_away=bool(warning))
    else:
        await _list(exchange, request, ask, feed, headers)


async def answer_object(
    exchange: Exchange, codec: Codec, api_version: str, kind: str, item: Item, warning: str = ""
) -> None:
    """Answers with one object.

    Raises:
        StreamError: the client is gone.
    """
    headers = [("content-type", codec.media_type), ("cache-control", "no-cache, private"), *_warned(warning)]
    await exchange.respond(200, headers, codec.whole_object(api_version, kind, item))


def client_of(exchange: Exchange, ask: Ask) -> str:
    """Returns what a reader of a scope is known by: a client may read several parts of it over one connection."""
    return f"{exchange.peer} {ask.scope.who} {ask.scope.label_selector} {ask.scope.field_selector}"


# Internal


def _warned(text: str) -> HeaderItems:
    """Returns the header that kubectl prints as a warning (RFC 7234 5.5; 299 is for texts that stay)."""
    said = printable(text, MAX_WARNING_CHARS).replace('"', "'").encode("ascii", "replace").decode()
    return [("warning", f'299 longline "{said}"')] if said else []


def _check(ask: Ask) -> None:
    """Checks that the options make sense, and that the version can be compared with those here."""
    (check_watch_options if ask.is_watch else check_list_options)(ask.query)
    if ask.version not in ("", "0"):
        try:
            version_of(ask.version)
        except ValueError as error:
            raise invalid("ListOptions", "meta.k8s.io", "resourceVersion", f"Invalid value: {error}") from error


def _is_exact(ask: Ask) -> bool:
    """Returns whether the state at exactly one version is asked for: a page of it, by older clients, is that too."""
    return ask.match == EXACT or (ask.is_paged and ask.version not in ("", "0") and not ask.match)


async def _list(exchange: Exchange, request: Request, ask: Ask, feed: Feed, headers: HeaderItems) -> None:
    replica, codec = feed.replica, feed.scope.codec
    if ask.more:
        raise ApiError(410, "the page is not kept here: list again from the beginning")
    if ask.version not in ("", "0"):
        wanted = version_of(ask.version)
        _check_age(feed, wanted)
        if _is_exact(ask) and wanted != replica.version:
            raise expired(wanted, replica.version or 0)
    items = replica.items(ask.selects)
    feed.note_list(client_of(exchange, ask))
    body = codec.whole_list(feed.api_version, feed.list_kind, str(replica.version), items)
    head = [("content-type", codec.media_type), ("cache-control", "no-cache, private"), *headers]
    if len(body) >= GZIP_BYTES and "gzip" in (request.headers.get("accept-encoding") or ""):
        body = await asyncio.to_thread(gzip.compress, body, 1)
        head += [("content-encoding", "gzip"), ("vary", "Accept-Encoding")]
    await exchange.respond(200, head, body)


def _check_age(feed: Feed, wanted: int) -> None:
    """Checks that a scope is as new as that.

    Raises:
        ApiError: 504, it is not; clients then ask for the newest.
    """
    if (feed.replica.version or 0) < wanted:
        raise too_new(wanted, feed.replica.version or 0)


async def _within(condition: Callable[[], bool]) -> bool:
    """Waits for a condition, and returns whether it holds."""
    end_s = asyncio.get_running_loop().time() + NEWER_WAIT_S
    while not condition():
        if asyncio.get_running_loop().time() >= end_s:
            return False
        await asyncio.sleep(0.02)
    return True


def _is_number(version: str) -> bool:
    """Returns whether a request names a version, and one that can be compared."""
    if version in ("", "0"):
        return False
    try:
        version_of(version)
    except ValueError:
        return False
    return True


def _has_forgotten(feed: Feed, ask: Ask, client: str) -> bool:
    version = version_of(ask.version)
    return feed.listed_at(client, version) is None and feed.replica.has_forgotten(version)


class _Watch:
    """What one watch has still to be told."""

    def __init__(self, ask: Ask, feed: Feed, client: str, *, is_away: bool) -> None:
        """Raises:
        ApiError: 410, the version that it goes on from is not known here.
        """
        self._feed = feed
        self._replica = feed.replica
        self._codec: Codec = feed.scope.codec
        self._selects = ask.selects
        self._ahead = 0
        """The version up to which the client knows all although it has not come here yet; 0: it knows no such thing."""
        self._has_more = False
        self._told_again: set[Key] = set()
        """The objects of which the client was told although it knew them better: it hears the rest of them as well."""
        self._told_version = self._replica.version or 0
        """The version up to which the client was told all; more may have happened since."""
        self.first: list[bytes] = []
        from_start = ask.initial_events or ask.version in ("", "0")
        if from_start:
            self.first = self._initial(ask)
            self._position = self._replica.position(None)
            return
        version = version_of(ask.version)
        if version > (self._replica.version or 0) and not is_away:
            # Its list came from the API server itself, which knew of more than had come here: that is left out.
            self._ahead = version
            self._position = self._replica.position(None)
            return
        listed = feed.listed_at(client, version)
        self._position = listed if listed is not None else self._replica.position(version)

    def next(self) -> bytes:
        """Returns what has happened since; empty when nothing has.

        Raises:
            ApiError: 410, not all of it is kept.
        """
        changes = self._replica.changes_since(self._position, AT_A_TIME)
        self._position += len(changes)
        self._has_more = len(changes) == AT_A_TIME
        if not self._has_more:
            self._told_version = self._replica.version or 0
        feed, codec = self._feed, self._codec
        return b"".join(
            codec.event(feed.api_version, feed.kind, event)
            for change in changes
            if self._is_news(change) and (event := event_of(change, self._selects)) is not None
        )

    def _is_news(self, change: Change[Item]) -> bool:
        """Returns whether the client may not know of a change."""
        if change.version > self._ahead:
            return True
        item = change.after or change.before
        assert item is not None
        if change.again:
            self._told_again.add(item.key)
        return item.key in self._told_again

    @property
    def has_more(self) -> bool:
        """Returns whether more is to be told at once."""
        return self._has_more

    def bookmark(self, *, initial_end: bool = False) -> bytes:
        """Returns the event that says how far the watch has come."""
        version = max(self._told_version, self._ahead)
        return self._codec.bookmark(self._feed.api_version, self._feed.kind, version, initial_end=initial_end)

    def _initial(self, ask: Ask) -> list[bytes]:
        feed, codec = self._feed, self._codec
        shown = [
            codec.event(feed.api_version, feed.kind, Event("ADDED", item, item.version))
            for item in self._replica.items(ask.selects)
        ]
        if ask.initial_events and ask.bookmarks:
            shown.append(self.bookmark(initial_end=True))
        return shown


async def _watch(exchange: Exchange, ask: Ask, feed: Feed, headers: HeaderItems, *, is_away: bool) -> None:
    codec = feed.scope.codec
    head = [("content-type", codec.stream_type), ("cache-control", "no-cache, private"), *headers]
    if ask.initial_events and ask.version not in ("", "0"):
        _check_age(feed, version_of(ask.version))
    try:
        watch = _Watch(ask, feed, client_of(exchange, ask), is_away=is_away)
    except ApiError as error:  # as the cacher's newErrWatcher: an answer of 200 with an event
        await exchange.start(200, head)
        await exchange.send(codec.error(error.body()))
        await exchange.finish()
        return
    await exchange.start(200, head)
    changed = asyncio.Event()
    unsubscribe = feed.replica.subscribe(changed.set)
    feed.watchers += 1
    try:
        await unless_gone(exchange, _stream(exchange, ask, feed, watch, changed))
    finally:
        feed.watchers -= 1
        feed.used_s = asyncio.get_running_loop().time()
        unsubscribe()


async def _stream(exchange: Exchange, ask: Ask, feed: Feed, watch: _Watch, changed: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + ask.timeout_s
    next_bookmark_s = _next_bookmark(loop.time(), end_s)
    for part in _parts(watch.first):
        await exchange.send(part)
    watch.first = []
    while (now_s := loop.time()) < end_s and feed.is_complete and feed.refused is None:
        changed.clear()
        try:
            events = watch.next()
        except ApiError as error:
            await exchange.send(feed.scope.codec.error(error.body()))
            break
        if events:
            await exchange.send(events)
        if watch.has_more:
            await asyncio.sleep(0)
            continue
        if now_s >= next_bookmark_s:
            next_bookmark_s = _next_bookmark(now_s, end_s)
            if ask.bookmarks:
                await exchange.send(watch.bookmark())
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(end_s, next_bookmark_s)):
                await changed.wait()
    await exchange.finish()


def _next_bookmark(now_s: float, end_s: float) -> float:
    """Returns when the next bookmark is due: in about a minute, and once shortly before the end."""
    last_s = end_s - LAST_BOOKMARK_S
    due_s = now_s + BOOKMARK_S * random.uniform(0.9, 1.1)  # noqa: S311 - not a secret
    return min(due_s, last_s) if now_s < last_s else float("inf")


def _parts(events: list[bytes]) -> list[bytes]:
    """Returns events joined to parts of some 64 KiB."""
    parts: list[bytes] = []
    part = bytearray()
    for event in events:
        part += event
        if len(part) >= 64 * 1024:
            parts.append(bytes(part))
            part = bytearray()
    return [*parts, bytes(part)] if part else parts


async def refuse(exchange: Exchange, error: ApiError) -> None:
    """Answers with an error, unless the client is gone. It never says when to try again: client-go would sleep inside
    the call as long as that (client-go v0.34 `rest/with_retry.go`).
    """
    with suppress(StreamError):
        await exchange.respond(error.code, [JSON_TYPE], encode(error.body()))


def away(words: str) -> ApiError:
    """Makes the error that the API server is away, and the answer is not kept."""
    return ApiError(503, words, cause=Cause("ApiServerAway", words))
