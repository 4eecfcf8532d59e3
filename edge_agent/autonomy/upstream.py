"""Asks the API server for the lists and watches that are kept, with the rights of one identity."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from edge_agent.autonomy.asks import Scope
from edge_agent.autonomy.lines import Line, Lines
from edge_agent.autonomy.passing import Unreached
from edge_agent.autonomy.uplink import Uplink
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
        lines: Lines,
        uplink: Uplink,
        authority: str,
        credentials: Callable[[], HeaderItems] = tuple,
        have_credentials: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Asks nothing yet.

        Args:
            lines: the connections with this identity.
            uplink: is told of what comes, and says when there is no use in asking.
            authority: the API server's `HOST:PORT`.
            credentials: returns the headers with the identity, where the connections do not have it.
            have_credentials: waits until there are some; None where there always are.
        """
        self._lines = lines
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
        line = await self._taken()
        try:
            async with asyncio.timeout(LIST_S):
                parameters = [("resourceVersion", version)] if version else []
                head = await self._asked(line, scope, parameters, scope.codec.media_type)
                body = await _body(line, head, 2 * max_bytes)
        except TimeoutError:
            raise Unreached(f"a list took longer than {spoken_s(LIST_S)}") from None
        finally:
            self._lines.give_back(line)
        self._uplink.heard()
        try:
            listed = scope.codec.read_list(body)
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
        line = await self._taken()
        try:
            parameters = [
                ("watch", "1"), ("allowWatchBookmarks", "true"), ("resourceVersion", str(version)),
                ("timeoutSeconds", str(round(seconds))),
            ]  # fmt: skip
            await self._asked(line, scope, parameters, scope.codec.stream_type)
            self._uplink.heard()
            yield self._events(line, scope, seconds + LATE_S)
        finally:
            self._lines.give_back(line)

    # Internal

    async def _taken(self) -> Line:
        try:
            return await self._lines.take()
        except OSError as error:
            self._uplink.doubt()
            raise Unreached(str(error) or type(error).__name__) from error

    async def _asked(self, line: Line, scope: Scope, parameters: list[tuple[str, str]], media_type: str) -> Response:
        """Asks, and returns the head of an answer of 200."""
        headers = [
            ("host", self._authority), ("accept", media_type), ("accept-encoding", "gzip"), ("user-agent", "longline"),
            *self._credentials(),
        ]  # fmt: skip
        try:
            await line.http.start("GET", scope.target(parameters), headers)
            await line.http.finish()
            head = await line.http.response()
            if head.status == 200:
                return head
            text = await _message(line, head)
        except StreamError:
            self._uplink.doubt()
            raise
        if head.status == 410:
            raise Gone
        if head.status in (401, 403, 404):
            raise Refused(head.status, text)
        if head.status in NO_SUCH_FORM:
            raise Unfit(f"the API server answers {head.status}: {text}")
        raise Unreached(f"the API server answers {head.status}: {text}")

    async def _events(self, line: Line, scope: Scope, most_s: float) -> AsyncIterator[list[Told]]:
        frames = scope.codec.frames()
        end_s = asyncio.get_running_loop().time() + most_s
        while True:
            try:
                async with asyncio.timeout_at(end_s):
                    chunk = await line.http.read_chunk()
            except TimeoutError:
                raise Unreached("a watch was not ended in time") from None
            except StreamError:
                self._uplink.doubt()
                raise
            if not chunk:
                return
            self._uplink.heard()
            if batch := list(frames.feed(chunk)):
                yield batch


# Internal


async def _body(line: Line, head: Response, max_bytes: int) -> bytes:
    """Returns the whole body of an answer, unpacked.

    Raises:
        TooLarge: it is longer than that, packed or unpacked.
    """
    packed = head.headers.get("content-encoding") == "gzip"
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    body = bytearray()
    while chunk := await line.http.read_chunk():
        try:
            body += unpacker.decompress(chunk, max_bytes + 1 - len(body)) if packed else chunk
        except zlib.error as error:
            raise HttpError(f"an answer that cannot be unpacked: {error}", 502) from error
        if len(body) > max_bytes or unpacker.unconsumed_tail:
            raise TooLarge(f"the list is longer than {max_bytes} bytes")
    return bytes(body)


async def _message(line: Line, head: Response) -> str:
    """Returns what an answer that is an error says; a page without end says nothing."""
    try:
        body = await _body(line, head, MAX_ERROR_BYTES)
    except TooLarge:
        return ""
    try:
        if head.headers.get("content-type") == PROTOBUF.media_type:
            return str(open_status(open_envelope(body).raw)["message"])[:500]
        status = decode(body)
    except ValueError:
        return body[:200].decode(errors="replace")
    return str(status.get("message", ""))[:500] if isinstance(status, dict) else ""
