"""Asks the API server for the lists and watches that are kept, with the rights of one identity."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from edge_agent.autonomy.asks import Scope
from edge_agent.autonomy.upward.calls import Body, Calls
from edge_agent.autonomy.upward.passing import Unreached
from edge_agent.autonomy.upward.uplink import Way
from tunnel.aio.http.http1 import HeaderItems, HttpError, Response
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.spoken import spoken_s
from tunnel.kubeapi.codecs import PROTOBUF, Listed, Told
from tunnel.kubeapi.encoding import decode
from tunnel.kubeapi.replica import version_of
from tunnel.kubeapi.wire_scan import open_envelope, open_status

LIST_S = 60.0
"""Seconds that a list may take, as an API server gives it."""
LATE_S = 30.0
"""Seconds that a watch may run over its time before it is cut: the API server is to end it."""
MAX_ERROR_BYTES = 64 * 1024
MAX_BATCH = 256
"""How many events are taken at once."""
NO_SUCH_FORM = (405, 406, 415)
"""The answers where a resource has no list or no watch, such as metrics, or not in this encoding, such as custom
resources in protobuf.
"""


class Refused(Exception):
    """The API server answered that there is no list or watch."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Gone(Exception):
    """The API server has forgotten what happened since the version that was asked for (410)."""


class Unfit(Exception):
    """A scope cannot be kept; the text says why."""


class TooLarge(Unfit):
    """It is larger than may be kept."""


class Upstream:
    """The API server for one identity."""

    def __init__(
        self,
        calls: Calls,
        uplink: Way,
        authority: str,
        credentials: Callable[[], HeaderItems] = tuple,
        have_credentials: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Asks nothing yet.

        Args:
            calls: the lists and watches with this identity.
            uplink: is told of what comes, and says when there is no use in asking.
            authority: the API server's `HOST:PORT`.
            credentials: returns the headers with the identity, where the connections do not have it.
            have_credentials: waits until there are some; None where there always are.
        """
        self._calls = calls
        self._uplink = uplink
        self._authority = authority
        self._credentials = credentials
        self._have_credentials = have_credentials

    @property
    def may_be_starting(self) -> bool:
        """Returns whether the API server is back since so short a time that it may know nobody's rights yet."""
        return self._uplink.may_be_starting

    async def ready(self) -> None:
        """Waits until the API server is reached, and can be asked with this identity."""
        await self._uplink.back()
        if self._have_credentials is not None:
            await self._have_credentials()

    async def pause(self, seconds: float) -> None:
        """Waits; shorter when the API server comes back meanwhile."""
        if self._uplink.is_up:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._uplink.gone()
        await self._uplink.back()

    async def fetch(self, scope: Scope, version: str, max_bytes: int) -> Listed:
        """Lists a scope as a whole. `version` is the resourceVersion to ask with: empty for the newest.

        Raises:
            Refused: the API server refuses that.
            Unfit: it cannot be kept: there is no such list in this encoding, it has no versions, or is too long.
            StreamError: there was no whole answer.
        """
        try:
            async with asyncio.timeout(LIST_S):
                parameters = [("resourceVersion", version)] if version else []
                async with self._asked(scope, parameters, scope.codec.media_type) as (head, body):
                    whole = await _whole(head, body, 2 * max_bytes)
        except TimeoutError:
            raise Unreached(f"a list took longer than {spoken_s(LIST_S)}") from None
        self._uplink.heard()
        try:
            listed = scope.codec.read_list(whole)
            version_of(listed.version)
        except ValueError as error:  # some aggregated APIs have no versions
            raise Unfit(f"the list cannot be kept: {error}") from error
        return listed

    @asynccontextmanager
    async def watch(self, scope: Scope, version: int, seconds: float) -> AsyncIterator[AsyncIterator[list[Told]]]:
        """Watches a scope from a version on. The iterator yields events as they come, those of one packet together; it
        ends when the time is up.

        Raises:
            Refused: the API server refuses that.
            Gone: it has forgotten the version.
            Unfit: there is no such watch.
            StreamError: the watch broke.
            ValueError: what comes is no watch.
        """
        parameters = [
            ("watch", "1"), ("allowWatchBookmarks", "true"), ("resourceVersion", str(version)),
            ("timeoutSeconds", str(round(seconds))),
        ]  # fmt: skip
        async with self._asked(scope, parameters, scope.codec.stream_type) as (_, body):
            self._uplink.heard()
            yield self._events(body, scope, seconds + LATE_S)

    # Internal

    @asynccontextmanager
    async def _asked(
        self, scope: Scope, parameters: list[tuple[str, str]], media_type: str
    ) -> AsyncIterator[tuple[Response, Body]]:
        """Asks, and yields an answer of 200."""
        headers = [
            ("accept", media_type), ("accept-encoding", "gzip"), ("user-agent", "longline"), *self._credentials(),
        ]  # fmt: skip
        text = ""
        async with AsyncExitStack() as stack:
            try:
                asked = self._calls.get(self._authority, scope.target(parameters), headers)
                async with asyncio.timeout(LIST_S):  # TimeoutError is an OSError
                    head, body = await stack.enter_async_context(asked)
                    if head.status != 200:
                        text = await _message(head, body)
            except OSError as error:
                self._uplink.doubt()
                raise Unreached(str(error) or type(error).__name__) from error
            except StreamError:
                self._uplink.doubt()
                raise
            if head.status == 200:
                yield head, body
            elif head.status == 410:
                raise Gone
            elif head.status == 401 and not self._uplink.is_up:  # the node's own credentials: see `Standing`
                raise Unreached(self._uplink.words())
            elif head.status in (401, 403, 404):
                raise Refused(head.status, text)
            elif head.status in NO_SUCH_FORM:
                raise Unfit(f"the API server answers {head.status}: {text}")
            else:
                raise Unreached(f"the API server answers {head.status}: {text}")

    async def _events(self, body: Body, scope: Scope, most_s: float) -> AsyncIterator[list[Told]]:
        frames, batch = scope.codec.frames(), list[Told]()
        end_s = asyncio.get_running_loop().time() + most_s
        while True:
            try:
                async with asyncio.timeout_at(end_s):
                    chunk = await body.read_chunk()
            except TimeoutError:
                raise Unreached("a watch was not ended in time") from None
            except StreamError:
                self._uplink.doubt()
                raise
            if not chunk:
                if batch:  # the end came with them
                    yield batch
                return
            self._uplink.heard()
            batch += frames.feed(chunk)
            # What came together is written and shown together: each write may have to wait for the last one.
            if batch and not (body.has_more and len(batch) < MAX_BATCH):
                yield batch
                batch = []


# Internal


async def _whole(head: Response, body: Body, max_bytes: int) -> bytes:
    """Returns the whole body of an answer, unpacked.

    Raises:
        TooLarge: it is longer than that, packed or unpacked.
    """
    packed = head.headers.get("content-encoding") == "gzip"
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    whole = bytearray()
    while chunk := await body.read_chunk():
        try:
            whole += unpacker.decompress(chunk, max_bytes + 1 - len(whole)) if packed else chunk
        except zlib.error as error:
            raise HttpError(f"an answer that cannot be unpacked: {error}", 502) from error
        if len(whole) > max_bytes or unpacker.unconsumed_tail:
            raise TooLarge(f"the list is longer than {max_bytes} bytes")
    return bytes(whole)


async def _message(head: Response, body: Body) -> str:
    """Returns what an answer that is an error says; a page without end says nothing."""
    try:
        said = await _whole(head, body, MAX_ERROR_BYTES)
    except TooLarge:
        return ""
    try:
        if head.headers.get("content-type") == PROTOBUF.media_type:
            return str(open_status(open_envelope(said).raw)["message"])[:500]
        status = decode(said)
    except ValueError:
        return said[:200].decode(errors="replace")
    return str(status.get("message", ""))[:500] if isinstance(status, dict) else ""
