"""The carrier: one gRPC call that moves serialized Envelopes both ways; here its interface and the dialling side.

The accepting side is `carrier_server.py`. What the messages mean, and what happens when a carrier is lost, is the
session's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, cast

import grpc
import grpc.aio

from tunnel.aio.carrier_errors import GRPC_ERRORS, CarrierLost, lost_from_error, lost_from_status
from tunnel.aio.channel import DialOptions, explain_failure, open_channel, release
from tunnel.aio.credentials import ClientTls
from tunnel.aio.methods import ACCEPTED, CONNECT
from tunnel.aio.one_task import OneTask
from tunnel.core.limits import MAX_MESSAGE_BYTES

__all__ = ["Carrier", "CarrierLost", "DialOptions", "dial_carrier"]

_StreamCall = grpc.aio.StreamStreamCall[bytes, bytes]


class Carrier(Protocol):
    """Ordered messages both ways. One task may read and one may write; cancelling either ends the carrier."""

    @property
    def peer(self) -> str:
        """The other end for logs, `ip:port` or the address that was dialled."""
        ...

    async def read(self) -> bytes | None:
        """The next message; None means that the other side ended the call and all it sent was read.

        Raises:
            CarrierLost: the carrier broke, or was closed here.
        """
        ...

    async def write(self, message: bytes) -> None:
        """Hand over a message, waiting while the link is slow. It is not yet sent when this returns.

        A message that crosses the other side's end of the call is lost in silence: whoever reads learns of the end,
        and of what the other side said before it.

        Raises:
            CarrierLost: the carrier broke, or was closed here, or the end is known already.
            ValueError: the message is longer than MAX_MESSAGE_BYTES.
        """
        ...

    async def finish(self) -> None:
        """Say that no more is written. What was written is delivered; read until None or a deadline, then close.

        On the accepting side this ends the call, since a gRPC server cannot end one direction alone.
        """
        ...

    def close(self) -> None:
        """End it at once, without waiting. Idempotent; a pending read or write ends with CarrierLost."""
        ...


async def dial_carrier(address: str, tls: ClientTls, options: DialOptions) -> Carrier:
    """Make a carrier over a new TCP connection; the server has accepted this box's certificate when it returns.

    Args:
        address: `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
        tls: read anew, so that a renewed certificate is used.
        options: deadline and proxy.

    Raises:
        CarrierLost: it could not be made; the text names the hop that failed.
    """
    channel = await open_channel(address, tls, options)
    carrier: _DialledCarrier | None = None
    try:
        async with asyncio.timeout(options.timeout_s):
            call: _StreamCall = channel.stream_stream(CONNECT)()
            carrier = _DialledCarrier(channel, call, address)
            await carrier.accepted()
    except BaseException as error:
        if carrier is None:
            release(channel)
        else:
            carrier.close()
        if isinstance(error, TimeoutError):
            lost = CarrierLost(f"{address}: no answer within {options.timeout_s:g} s", vague=True)
        elif isinstance(error, CarrierLost):
            lost = error
        else:
            raise
        raise await explain_failure(lost, address, tls, options) from error
    return carrier


# Internal


class _DialledCarrier:
    """The dialling side. The channel belongs to it: one channel, one call, one TCP connection."""

    def __init__(self, channel: grpc.aio.Channel, call: _StreamCall, peer: str) -> None:
        self.peer = peer
        self._channel = channel
        self._call = call
        self._reader = OneTask("read")
        self._writer = OneTask("write")
        # Not call.read(): once a write has failed, that leaves unread what the server said before it ended the call.
        self._messages = cast(AsyncGenerator[object], aiter(call))
        self._lost: CarrierLost | None = None
        self._unheard: CarrierLost | None = None

    async def accepted(self) -> None:
        """Wait for the server's word that it has accepted the certificate."""
        with self._operation(self._reader):
            if ACCEPTED not in tuple(await self._call.initial_metadata()):
                code, details = await self._call.code(), await self._call.details()
                raise self._lose(lost_from_status(code, details, self.peer))

    async def read(self) -> bytes | None:
        with self._operation(self._reader):
            message = await anext(self._messages, None)
        if isinstance(message, bytes):
            return message
        self._note_end()
        return None

    async def write(self, message: bytes) -> None:
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes is longer than {MAX_MESSAGE_BYTES}")
        if self._unheard is not None:
            raise self._unheard
        with self._operation(self._writer):
            try:
                await self._call.write(message)
            except GRPC_ERRORS:  # "Internal error from Core": the reason comes to the reader
                self._note_end()

    async def finish(self) -> None:
        with self._operation(self._writer), suppress(*GRPC_ERRORS):
            await self._call.done_writing()

    def close(self) -> None:
        if self._lost is None:
            self._lost = CarrierLost(f"{self.peer}: closed here")
        self._reader.cut()
        self._writer.cut()
        # The call first: closing the channel under a pending read may leave that read waiting for ever.
        self._call.cancel()
        if not self._reader.busy:
            # The call and the iterator of its messages hold each other, and a cut read ends the iterator by itself.
            with suppress(StopIteration):
                self._messages.aclose().send(None)
        release(self._channel)

    @contextmanager
    def _operation(self, direction: OneTask) -> Iterator[None]:
        if self._lost is not None:
            raise self._lost
        direction.enter()
        try:
            yield
        except asyncio.CancelledError:
            if direction.asked_by_owner():
                direction.leave()
                self.close()
                raise
            # gRPC says so to whoever is inside a call that was cancelled on this side.
            raise self._lose(CarrierLost(f"{self.peer}: closed here")) from None
        except GRPC_ERRORS as error:
            raise self._lose(lost_from_error(error, self.peer)) from error
        finally:
            direction.leave()

    def _note_end(self) -> None:
        self._unheard = CarrierLost(f"{self.peer}: the other side ended the call")

    def _lose(self, lost: CarrierLost) -> CarrierLost:
        """Remember the first reason; later failures of either direction only follow from it."""
        if self._lost is None:
            self._lost = lost
        return self._lost
