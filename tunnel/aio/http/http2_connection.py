"""Serves HTTP/2 over one socket: many streams, windows both ways, and no more patience with a client than its streams
are worth. It knows neither gRPC nor exchanges.

The protocol itself is the library's (h2). What it says of received bytes is handled as a whole before anything is sent,
so that a stream which the client has reset in the same breath is not written to any more.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable

import structlog
from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from tunnel.aio.http.flood import BURST_BYTES, FloodGuard
from tunnel.aio.http.http2_limits import Http2Limits, new_h2
from tunnel.aio.http.http2_stream import Http2Stream
from tunnel.aio.http.keepalive import KeepAlive, host_silent_s
from tunnel.aio.http.window_updates import take_window_updates
from tunnel.core.wire.faults import PROTOCOL_BROKEN

CONNECTION_WINDOW_BYTES = 1024 * 1024
"""The connection's receive window. It is given back as soon as bytes come in, so that no stalled stream stops the
others: their own windows bound them.
"""
MAX_FRAME_BYTES = 64 * 1024
"""The largest DATA frame that we send, where a client takes so large ones: Go's gRPC takes 16 KiB, its HTTP client too.
"""
WRITE_BYTES = 64 * 1024
"""How many bytes go into the socket at a time."""
WIDE_WINDOW_BYTES = 1024 * 1024
REST_S = 0.003
"""Seconds for which nothing is read from a client with windows so wide (Go's have 4 MiB) that had nothing to say but
how much it took. kubectl says so for every 4 KiB, and to be woken up by each is half the work of a download.
"""
TURN_BYTES = 1024 * 1024
"""How many bytes one connection sends before the rest of the server has its turn."""
RECEIVE_BYTES = 16 * 1024
"""How many received bytes are handled between two looks at the flood guard: a thousand pings."""
MAX_UNSENT_BYTES = 256 * 1024
"""The most bytes that the client may leave unread, mostly our answers to its pings and the like; beyond that nothing
more is read from it.
"""
HEADER_TABLE_BYTES = 4096
HEADER_OVERHEAD_BYTES = 32
"""Bytes that each field of a header list counts beside its name and value (RFC 9113 6.5.2)."""
CLOSE_S = 5.0
"""Seconds that a client may take to read our last words."""

_PING = b"longline"
"""The payload of our pings: eight bytes, as a PING has."""

_log = structlog.get_logger("cloud.http2")

OnRequest = Callable[[Http2Stream], None]
"""A function that is called with each new stream, and must set its `handler` or end it."""


class Http2Connection(asyncio.Protocol):
    """One HTTP/2 connection, which takes the socket over."""

    def __init__(self, transport: asyncio.Transport, peer: str, limits: Http2Limits, on_request: OnRequest) -> None:
        """Serves nothing until `start`. `on_request` is called with each stream that the client opens; `peer` is for
        logs.
        """
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._peer = peer
        self._on_request = on_request
        self._limits = limits
        self._h2 = new_h2(limits)
        self._guard = FloodGuard(self._loop.time(), BURST_BYTES + limits.head_bytes)
        self._keepalive: KeepAlive | None = None
        self._streams: dict[int, Http2Stream] = {}
        self._heads_bytes = 0
        self._asked_before = False
        self._ready: deque[Http2Stream] = deque()
        self._received = 0
        self._busy = False
        self._write_paused = False
        self._read_paused = False
        self._draining = False
        self._over = False
        self._pump_later: asyncio.Handle | None = None
        self._rest_later: asyncio.Handle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self.done: asyncio.Future[None] = self._loop.create_future()
        """A future that is settled when the socket is gone."""

    # Public

    @property
    def streams(self) -> int:
        """Returns the number of streams that are open."""
        return len(self._streams)

    @property
    def unsent_bytes(self) -> int:
        """Returns the number of bytes, of all streams together, that wait for the client to open windows."""
        return sum(stream.unsent_bytes for stream in self._streams.values())

    def start(self, early: bytes, *, at_eof: bool) -> None:
        """Begins to serve, with the bytes that were read already; with `at_eof` no more come."""
        self._transport.set_protocol(self)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES - 65535)
        self._watch_idle()
        if self._limits.ping_s is not None:
            self._keepalive = KeepAlive(self, self._limits.ping_s)
        self._flush()
        if self._transport.is_closing():
            self.connection_lost(None)
            return
        if early:
            self.data_received(early)
        if at_eof:
            self.eof_received()
        elif not self._read_paused:
            self._transport.resume_reading()

    def take_long_heads(self, head_bytes: int) -> None:
        """Lets a client that turned out to be a user send longer header lists, as its new settings say."""
        if self._over or head_bytes <= self._h2.decoder.max_header_list_size:
            return
        self._h2.update_settings({SettingCodes.MAX_HEADER_LIST_SIZE: head_bytes})
        self._h2.decoder.max_header_list_size = head_bytes
        self._guard.widen(BURST_BYTES + head_bytes)
        self._pump()

    def drain(self) -> None:
        """Takes no more streams; those that run go on, and the connection ends behind the last."""
        if self._over or self._draining:
            return
        self._draining = True
        # By hand: for the library a GOAWAY ends everything.
        frame = struct.pack(">HBBBIII", 0, 8, 7, 0, 0, self._h2.highest_inbound_stream_id, ErrorCodes.NO_ERROR)
        self._transport.write(frame)
        self._close_if_drained()

    def close(self) -> None:
        """Ends the connection, with all streams that are left."""
        self._end("the server closed the connection", ErrorCodes.NO_ERROR)

    # Internal - called by streams

    def wants_to_send(self, stream: Http2Stream) -> None:
        """Queues a stream for its turn to send, and sends what may be sent."""
        if not stream.ready:
            self._make_ready(stream)
        self._pump()

    # Internal - called by the keepalive

    def ping(self) -> None:
        """Sends a PING, which the client must answer."""
        if not self._over:
            self._h2.ping(_PING)
            self._pump()

    def host_silent_s(self) -> float:
        """Returns for how many seconds the client's kernel has said nothing."""
        return host_silent_s(self._transport)

    def client_dead(self) -> None:
        """Cuts the connection without last words, since nobody is there to read them."""
        _log.info("client is gone", peer=self._peer)
        self._transport.abort()

    # Internal - called by the event loop

    def data_received(self, data: bytes) -> None:
        """Handles bytes that came."""
        if self._keepalive is not None:
            self._keepalive.heard()
        self._busy = True
        view = memoryview(data)
        only_updates = True
        for start in range(0, len(data), RECEIVE_BYTES):
            if self._over:
                break
            only_updates &= self._receive(view[start : start + RECEIVE_BYTES])
        self._busy = False
        self._pump()
        if only_updates and self._rest_later is None:
            self._rest_later = self._loop.call_soon(self._rest)  # not now: more may have been decrypted already
        if not self._over and not self._read_paused and self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._read_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Ends the connection, since the client is gone: HTTP/2 has no use for half a connection."""
        self._end("the client closed the connection", ErrorCodes.NO_ERROR)
        return False

    def pause_writing(self) -> None:
        """Stops sending, since the socket is full."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Sends and reads on, since the socket has room."""
        self._write_paused = False
        if self._read_paused:
            self._read_paused = False
            self._read_on()
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the event loop's signature
        """Ends everything that the connection has, since the socket is gone."""
        self._over = True
        self._lose_streams("the client closed the connection")
        for handle in (self._idle_timer, self._abort_timer, self._pump_later, self._rest_later):
            if handle is not None:
                handle.cancel()
        if self._keepalive is not None:
            self._keepalive.stop()
        if not self.done.done():
            self.done.set_result(None)

    # Internal - receiving

    def _rest(self) -> None:
        self._rest_later = None
        wide = self._h2.remote_settings.initial_window_size >= WIDE_WINDOW_BYTES
        if wide and not self._over and not self._read_paused:
            self._transport.pause_reading()
            self._rest_later = self._loop.call_later(REST_S, self._read_on)

    def _read_on(self) -> None:
        self._rest_later = None
        if not self._over and not self._read_paused:
            self._transport.resume_reading()

    def _receive(self, data: memoryview) -> bool:
        """Handles some of the received bytes. Returns whether they were nothing but window updates."""
        if (opened := take_window_updates(self._h2, data)) is not None:
            for stream_id in opened:
                self._on_window(stream_id)
            self._account(len(data), 0, 0)
            return True
        window = self._h2.inbound_flow_control_window
        try:
            happened = self._h2.receive_data(data)
        except ProtocolError as error:
            self._fault(str(error))
            return False
        # Not from the events: there are none for what comes late, for a stream that we have ended.
        payload = max(0, window - self._h2.inbound_flow_control_window)
        resets = 0
        for event in happened:
            resets += isinstance(event, events.StreamReset)
            self._handle(event)
        self._account(len(data), payload, resets)
        return False

    def _account(self, total_bytes: int, payload_bytes: int, resets: int) -> None:
        if not self._guard.received(total_bytes, payload_bytes, resets, self._loop.time()):
            self._end("the client sent too much that is no data", ErrorCodes.ENHANCE_YOUR_CALM)

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.DataReceived():
                self._on_data(event)
            case events.WindowUpdated():
                self._on_window(event.stream_id)
            case events.RemoteSettingsChanged():
                # What a client wants us to remember of headers is memory of ours. Setting what is set already would
                # make the library forget to tell the client of a change.
                if self._h2.encoder.header_table_size > HEADER_TABLE_BYTES:
                    self._h2.encoder.header_table_size = HEADER_TABLE_BYTES
                self._on_window(0)
            case events.RequestReceived():
                self._on_headers(event)
            case events.StreamEnded():
                stream = self._streams.get(event.stream_id)
                if stream is not None:
                    stream.client_finished = True
                    if stream.handler is not None:
                        stream.handler.eof_received()
            case events.StreamReset():
                self._lose(event.stream_id, "the client reset the call")
            case events.ConnectionTerminated():
                # The library says no more from here on. Go's client sends it right before it closes.
                self._leave("the client closed the connection")
            case _:
                pass

    def _on_headers(self, event: events.RequestReceived) -> None:
        headers = [(bytes(name), bytes(value)) for name, value in event.headers]
        head_bytes = sum(len(name) + len(value) + HEADER_OVERHEAD_BYTES for name, value in headers)
        stream = Http2Stream(self, event.stream_id, headers, head_bytes, self._limits.window_bytes)
        self._streams[stream.id] = stream
        self._heads_bytes += head_bytes
        self._asked_before = True
        self._watch_idle()
        if self._draining or self._heads_bytes > self._limits.heads_bytes:
            stream.reset(ErrorCodes.REFUSED_STREAM)
        else:
            self._on_request(stream)

    def _on_data(self, event: events.DataReceived) -> None:
        self._received += event.flow_controlled_length
        stream = self._streams.get(event.stream_id)
        if stream is None or stream.handler is None:
            return
        stream.taken(event.flow_controlled_length - len(event.data))
        if event.data:
            stream.handler.data_received(event.data)

    def _on_window(self, stream_id: int) -> None:
        for stream in self._streams.values() if stream_id == 0 else [*filter(None, [self._streams.get(stream_id)])]:
            if stream.queued and not stream.ready:
                self._make_ready(stream)

    def _make_ready(self, stream: Http2Stream) -> None:
        stream.ready = True
        self._ready.append(stream)

    # Internal - sending

    def _pump(self) -> None:
        """Sends what may be sent, a frame of each stream in turn."""
        if self._busy or self._over:
            return
        self._busy = True
        unwritten = turn = 0
        # A stream that is stopped by its own window leaves the queue; the connection's window stops them all.
        stopped: list[Http2Stream] = []
        try:
            self._return_credit()
            while self._ready and not self._write_paused and turn < TURN_BYTES and not self._over:
                stream = self._ready.popleft()
                count = self._send_of(stream, stopped)
                unwritten += count
                turn += count
                if unwritten >= WRITE_BYTES:
                    self._flush()
                    unwritten = 0
            self._flush()
        finally:  # one stream that cannot be sent must not silence all others
            self._ready.extend(stopped)
            self._busy = False
        if turn >= TURN_BYTES and self._ready and self._pump_later is None:
            self._pump_later = self._loop.call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._pump_later = None
        self._pump()

    def _send_of(self, stream: Http2Stream, stopped: list[Http2Stream]) -> int:
        """Gives a stream one turn. Returns how many bytes of data it sent."""
        stream.ready = False
        if self._streams.get(stream.id) is not stream:
            return 0
        h2 = self._h2
        if (code := stream.take_reset()) is not None:
            h2.reset_stream(stream.id, code)
            self._forget(stream)
            return 0
        if (headers := stream.take_response()) is not None:
            h2.send_headers(stream.id, headers)
        if credit := stream.take_credit():
            h2.increment_flow_control_window(credit, stream.id)
        count = 0
        if stream.queued:
            count = self._send_data(stream)
            if stream.queued and (count or h2.outbound_flow_control_window <= 0) and not stream.ready:
                stream.ready = True
                (self._ready if count else stopped).append(stream)
        if (trailers := stream.take_trailers()) is not None:
            self._finish(stream, trailers)
        elif count and not stream.queued and stream.handler is not None:
            stream.handler.sent()
        return count

    def _send_data(self, stream: Http2Stream) -> int:
        room = min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size, MAX_FRAME_BYTES)
        if room <= 0:
            return 0
        data = stream.take_data(room)
        self._h2.send_data(stream.id, data)
        self._guard.sent(len(data))
        return len(data)

    def _finish(self, stream: Http2Stream, trailers: list[tuple[bytes, bytes]]) -> None:
        if trailers:
            self._h2.send_headers(stream.id, trailers, end_stream=True)
        else:
            self._h2.end_stream(stream.id)
        if not stream.client_finished:
            self._h2.reset_stream(stream.id, ErrorCodes.NO_ERROR)
        self._forget(stream)

    def _return_credit(self) -> None:
        if self._received >= CONNECTION_WINDOW_BYTES // 2:
            self._h2.increment_flow_control_window(self._received)
            self._received = 0

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)
            if self._keepalive is not None:
                self._keepalive.said()

    # Internal - ending

    def _forget(self, stream: Http2Stream) -> None:
        if self._streams.pop(stream.id, None) is not None:
            self._heads_bytes -= stream.head_bytes
        self._watch_idle()
        self._close_if_drained()

    def _lose(self, stream_id: int, text: str) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        handler, stream.handler = stream.handler, None
        self._forget(stream)
        if handler is not None:
            handler.lost(text)

    def _lose_streams(self, text: str) -> None:
        for stream_id in [*self._streams]:
            self._lose(stream_id, text)

    def _fault(self, text: str) -> None:
        """Ends the connection of a client that broke the protocol; the library has a GOAWAY for it."""
        _log.info("client broke HTTP/2", peer=self._peer, reason=text)
        self._leave(text)

    def _end(self, text: str, code: ErrorCodes) -> None:
        if self._over:
            return
        if code is not ErrorCodes.NO_ERROR:
            _log.warning("connection closed", code=PROTOCOL_BROKEN.code, peer=self._peer, reason=text)
        self._h2.close_connection(code)
        self._leave(text)

    def _leave(self, text: str) -> None:
        self._over = True
        self._flush()
        self._transport.close()
        self._lose_streams(text)
        if not self.done.done():
            self._abort_timer = self._loop.call_later(CLOSE_S, self._transport.abort)

    def _close_if_drained(self) -> None:
        if self._draining and not self._streams:
            self._loop.call_soon(self.close)

    def _watch_idle(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if not self._streams and not self._over:
            idle_s = self._limits.idle_s if self._asked_before else self._limits.first_s
            self._idle_timer = self._loop.call_later(idle_s, self.close)
