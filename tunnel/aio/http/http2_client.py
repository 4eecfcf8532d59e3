"""The client's side of an HTTP/2 connection: many requests at once that have no body, and whose answers may never end.

It is for lists and watches. What comes for one request waits here until it is read, up to a window of its own; the
window of the connection is given back at once, so that a reader that is slow stops no other one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from tunnel.aio.http.http1 import MAX_HEAD_BYTES, HeaderItems, Headers, Response
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import StreamError, StreamReset
from tunnel.core.wire.spoken import printable, spoken_s

WINDOW_BYTES = 256 * 1024
"""Bytes that an answer may be ahead of its reader: at 100 ms of delay a list comes with 2.5 MB/s."""
CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024
MAX_STREAMS = 100
"""The most requests at once, of which a server may allow fewer; kube-apiserver allows as many
(`--http2-max-streams-per-connection`).
"""
QUIET_S, ANSWER_S = 30.0, 15.0
"""Seconds of silence after which the server is pinged, and that it may take to say anything then, as client-go has it
(apimachinery v0.34 `util/net/http.go`).
"""
HEADER_TABLE_BYTES = 4096
_PING = b"longline"


class Http2Answer:
    """The answer to one request, as it comes."""

    __slots__ = ("_chunks", "_client", "_ended", "_error", "_held_bytes", "_unacknowledged", "_woken", "head", "id")

    def __init__(self, client: Http2Client, stream_id: int) -> None:
        self._client = client
        self.id = stream_id
        self.head: Response | None = None
        """None until it has come."""
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._unacknowledged = 0
        self._ended = False
        self._error: StreamError | None = None
        self._woken = asyncio.Event()

    async def response(self) -> Response:
        """Waits for the head of the answer and returns it.

        Raises:
            StreamError: there is none, since the request or the connection ended.
        """
        while self.head is None:
            await self._wait()
        return self.head

    async def read_chunk(self) -> bytes:
        """Waits for more of the body and returns all that is there; `b""` is its proper end.

        Raises:
            StreamError: it broke off.
        """
        while not self._chunks and not self._ended:
            await self._wait()
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._unacknowledged += self._held_bytes
        self._held_bytes = 0
        if self._unacknowledged >= WINDOW_BYTES // 2 and not self._ended:
            credit, self._unacknowledged = self._unacknowledged, 0
            self._client.give_credit(self.id, credit)
        return body

    @property
    def has_more(self) -> bool:
        """Returns whether more of the body has come than was read."""
        return bool(self._chunks)

    def close(self) -> None:
        """Ends the request, if it is not over."""
        self._client.end(self)

    # Internal - called by the connection

    def began(self, head: Response) -> None:
        """Takes the head."""
        self.head = head
        self._woken.set()

    def came(self, data: bytes, credit_bytes: int) -> None:
        """Takes a part of the body. `credit_bytes`: what it took of the window."""
        if data:
            self._chunks.append(data)
        self._held_bytes += credit_bytes
        self._woken.set()

    def ended(self) -> None:
        """Takes that this was all."""
        self._ended = True
        self._woken.set()

    def lost(self, error: StreamError) -> None:
        """Takes that no more comes, although this was not all."""
        self._error = error
        self._woken.set()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        if self._ended:
            raise StreamReset("an answer without a head")
        self._woken.clear()
        await self._woken.wait()


class Http2Client:
    """One connection. The owner runs `run`, and calls `get` meanwhile."""

    def __init__(self, conn: Conn) -> None:
        """Sends the preface. `conn` must have agreed on HTTP/2, and is this client's from now on."""
        self._conn = conn
        self._answers: dict[int, Http2Answer] = {}
        self._received = 0
        self._error: StreamError | None = None
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
            },
        )
        self._h2.decoder.max_header_list_size = MAX_HEAD_BYTES
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES - 65535)
        self._flush()

    @property
    def streams(self) -> int:
        """Returns how many requests run."""
        return len(self._answers)

    @property
    def has_room(self) -> bool:
        """Returns whether one more request may be sent."""
        most = min(MAX_STREAMS, self._h2.remote_settings.max_concurrent_streams)
        return self._error is None and not self._conn.closed.done() and len(self._answers) < most

    def get(self, authority: str, target: str, headers: HeaderItems) -> Http2Answer:
        """Sends a GET, and returns its answer, which the caller must `close`. There must be room.

        Raises:
            StreamError: the connection is gone.
        """
        if self._error is not None:
            raise self._error
        items: Sequence[tuple[str, str]] = [
            (":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", target),
            *((name.lower(), value) for name, value in headers),
        ]  # fmt: skip
        try:
            stream_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream_id, items, end_stream=True)
        except H2Error as error:
            raise StreamReset(f"HTTP/2: {error}") from error
        answer = self._answers[stream_id] = Http2Answer(self, stream_id)
        self._flush()
        return answer

    async def run(self) -> None:
        """Reads what comes until the connection ends, which ends all answers that are not over."""
        try:
            await self._read()
        except StreamError as error:
            self._lose(error)
        finally:
            self._lose(StreamReset("the connection was closed"))
            self._conn.close()

    def close(self) -> None:
        """Ends the connection with all requests."""
        self._lose(StreamReset("the connection was closed by this side"))
        self._conn.reset()

    # Internal - called by answers

    def give_credit(self, stream_id: int, count: int) -> None:
        """Lets the server send more of an answer."""
        if self._error is None and stream_id in self._answers:
            self._h2.increment_flow_control_window(count, stream_id)
            self._flush()

    def end(self, answer: Http2Answer) -> None:
        """Ends a request, if it is not over."""
        if self._answers.pop(answer.id, None) is not None and self._error is None:
            self._h2.reset_stream(answer.id, ErrorCodes.CANCEL)
            self._flush()

    # Internal

    async def _read(self) -> None:
        is_asked = False
        while True:
            try:
                async with asyncio.timeout(ANSWER_S if is_asked else QUIET_S):
                    data = await self._conn.read()
            except TimeoutError:
                if is_asked:
                    raise StreamReset(f"nothing came for {spoken_s(QUIET_S + ANSWER_S)}") from None
                self._h2.ping(_PING)
                self._flush()
                is_asked = True
                continue
            if not data:
                raise StreamReset("the server closed the connection")
            is_asked = False
            try:
                happened = self._h2.receive_data(data)
            except H2Error as error:
                self._flush()
                raise StreamReset(printable(f"the server broke HTTP/2: {error}", 200)) from error
            for event in happened:
                self._handle(event)
            if self._received >= CONNECTION_WINDOW_BYTES // 2:
                self._h2.increment_flow_control_window(self._received)
                self._received = 0
            self._flush()

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.DataReceived(stream_id=int(stream_id), data=data, flow_controlled_length=int(count)):
                self._received += count
                if (answer := self._answers.get(stream_id)) is not None:
                    answer.came(data or b"", count)
            case events.ResponseReceived(stream_id=int(stream_id), headers=headers):
                if (answer := self._answers.get(stream_id)) is not None:
                    self._begin(answer, Headers((_text(name), _text(value)) for name, value in headers or ()))
            case events.StreamEnded(stream_id=int(stream_id)):
                if (answer := self._answers.pop(stream_id, None)) is not None:
                    answer.ended()
            case events.StreamReset(stream_id=int(stream_id), error_code=code):
                if (answer := self._answers.pop(stream_id, None)) is not None:
                    answer.lost(StreamReset(f"the server reset the request ({code!s})"))
            case events.RemoteSettingsChanged():
                if self._h2.encoder.header_table_size > HEADER_TABLE_BYTES:
                    self._h2.encoder.header_table_size = HEADER_TABLE_BYTES
            case events.ConnectionTerminated():
                # The library takes nothing more. What runs is asked for again on another connection.
                raise StreamReset("the server sends its clients away")
            case _:
                pass

    def _begin(self, answer: Http2Answer, headers: Headers) -> None:
        status = headers.get(":status") or ""
        if not (status.isascii() and status.isdigit() and len(status) == 3):
            raise StreamReset("an answer without a status")
        answer.began(Response(int(status), "", headers))

    def _lose(self, error: StreamError) -> None:
        self._error = self._error or error
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.lost(self._error)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._conn.closed.done() and not self._conn.transport.is_closing():
            self._conn.transport.write(data)


# Internal


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
