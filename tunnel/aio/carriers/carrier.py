"""The carrier, one gRPC call that moves serialized Envelopes both ways: its interface, and the dialling side.

The accepting side is `carrier_server.py`. What the messages mean, and what happens when a carrier is lost, is the
session's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Protocol, cast

import grpc
import grpc.aio

from tunnel.aio.carriers.carrier_errors import GRPC_ERRORS, CarrierLost, lost_from_error, lost_from_status
from tunnel.aio.carriers.channel import DialOptions, explain_failure, open_channel, release
from tunnel.aio.carriers.methods import ACCEPTED, CONNECT
from tunnel.aio.carriers.one_task import OneTask, Operation
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.core.wire.faults import SERVER_SILENT
from tunnel.core.wire.limits import MAX_MESSAGE_BYTES
from tunnel.core.wire.spoken import spoken_s

__all__ = ["Carrier", "CarrierLost", "DialOptions", "dial_carrier"]

_StreamCall = grpc.aio.StreamStreamCall[bytes, bytes]


class Carrier(Protocol):
    """A channel of ordered messages both ways.

    One task may read and one may write; cancelling either ends the carrier.
    """

    @property
    def peer(self) -> str:
        """Returns the other end for logs: `ip:port`, or the address that was dialled."""
        ...

    async def read(self) -> bytes | None:
        """Waits for the next message and returns it; None when the other side ended the call and all it
        sent was read.

        Raises:
            CarrierLost: the carrier broke, or was closed here.
        """
        ...

    async def write(self, message: bytes) -> None:
        """Hands a message over, and waits while the link is slow. It is not yet sent when this returns.

        A message that crosses the other side's end of the call is lost in silence: whoever reads learns of the end,
        and of what the other side said before it.

        Raises:
            CarrierLost: the carrier broke, or was closed here, or the end is known already.
            ValueError: the message is longer than MAX_MESSAGE_BYTES.
        """
        ...

    async def finish(self) -> None:
        """Says that no more is written. What was written is delivered; read until None or a deadline, then close.

        On the accepting side this ends the call, since a gRPC server cannot end one direction alone.
        """
        ...

    def close(self) -> None:
        """Ends the carrier at once, without waiting.

        Further calls do nothing; a pending read or write ends with CarrierLost.
        """
        ...


async def dial_carrier(address: str, tls: ClientTls, options: DialOptions, at: Sequence[str] = ()) -> Carrier:
    """Makes a carrier over a new TCP connection. When it returns, the server has accepted this box's certificate.

    Args:
        address: `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
        tls: read anew, so that a renewed certificate is used.
        options: deadline and proxy.
        at: IP addresses to dial in place of those that the name has; the certificate is checked for the name all the
            same. Empty: the name is looked up.

    Raises:
        CarrierLost: it could not be made; the text names the hop that failed.
    """
    channel = await open_channel(address, tls, options, at)
    carrier = _DialledCarrier(channel, address, options)
    try:
        async with asyncio.timeout(options.timeout_s):
            lost = await carrier.refusal()
    except TimeoutError:
        lost = CarrierLost(
            f"{address}: no answer within {spoken_s(options.timeout_s)}", fault=SERVER_SILENT, vague=True
        )
    except BaseException:
        carrier.close()
        raise
    if lost is None:
        return carrier
    carrier.close()
    if at:
        raise lost  # to explain it, the name would be looked up
    try:
        raise await explain_failure(lost, address, tls, options)
    finally:
        # The error holds this frame: it must hold neither the error, nor a channel, which would dial on.
        del lost, carrier, channel


# Internal


class _DialledCarrier:
    """The dialling side of a carrier. It owns its channel: one channel, one call, one TCP connection."""

    def __init__(self, channel: grpc.aio.Channel, peer: str, options: DialOptions) -> None:
        self.peer = peer
        self._options = options
        self._channel = channel
        self._call: _StreamCall | None = channel.stream_stream(CONNECT)()
        self._reading = OneTask("read")
        self._writing = OneTask("write")
        self._lost: CarrierLost | None = None
        self._unheard = False

    async def refusal(self) -> CarrierLost | None:
        """Waits for the server's word on the certificate. Returns None when it accepts it, else why not."""
        try:
            with Operation(self, self._reading):
                call = self._open_call
                headers = tuple(await call.initial_metadata())
                self._options.saw(headers)
                if ACCEPTED in headers:
                    return None
                return lost_from_status(await call.code(), await call.details(), self.peer)
        except CarrierLost as lost:
            return lost.again()

    async def read(self) -> bytes | None:
        with Operation(self, self._reading):
            # Not call.read(): once a write has failed, that leaves unread what the server said before it ended the
            # call.
            message: object = await anext(aiter(self._open_call), None)
        if isinstance(message, bytes):
            return message
        self._unheard = True
        return None

    async def write(self, message: bytes) -> None:
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes is longer than {MAX_MESSAGE_BYTES}")
        with Operation(self, self._writing):
            if self._unheard:
                raise CarrierLost(f"{self.peer}: the other side ended the call")
            try:
                await self._open_call.write(message)
            except GRPC_ERRORS:  # "Internal error from Core": the reason comes to the reader
                self._unheard = True

    async def finish(self) -> None:
        with Operation(self, self._writing), suppress(*GRPC_ERRORS):
            await self._open_call.done_writing()

    def close(self) -> None:
        if self._lost is None:
            self._lost = CarrierLost(f"{self.peer}: closed here")
        self._reading.cut()
        self._writing.cut()
        # Let go, since gRPC keeps the TCP connection until the last reference to the call is gone.
        call, self._call = self._call, None
        if call is None:
            return
        # The call first: closing the channel under a pending read may leave that read waiting for ever.
        call.cancel()
        if not self._reading.busy:
            # The call and the iterator of its messages hold each other; a read that was cut ends the iterator itself.
            with suppress(StopIteration):
                cast(AsyncGenerator[object], aiter(call)).aclose().send(None)
        release(self._channel)

    @property
    def _open_call(self) -> _StreamCall:
        """Returns the call, which exists for whoever is inside an operation."""
        assert self._call is not None
        return self._call

    def begin(self) -> None:
        if self._lost is not None:
            raise self._lost.again()

    def failed(self, error: BaseException, by_owner: bool) -> None:
        if isinstance(error, asyncio.CancelledError):
            if not by_owner:  # gRPC says so to whoever is inside a call that was cancelled on this side
                raise self._reason(CarrierLost(f"{self.peer}: closed here")) from None
            self.close()
        elif isinstance(error, GRPC_ERRORS):
            raise self._reason(lost_from_error(error, self.peer)) from error

    def _reason(self, lost: CarrierLost) -> CarrierLost:
        """Keeps the first reason and returns it anew; later failures of either direction only follow from it."""
        if self._lost is None:
            self._lost = lost
        return self._lost.again()
