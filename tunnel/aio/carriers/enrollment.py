"""Join, Renew and Recover: the unary calls by which a box gets its certificate, keeps it fresh, and gets it back.

Here is the transport of both sides. Who may have which certificate is decided by the `EnrollmentHandler`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import NoReturn, Protocol, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message

from protos import tunnel_pb2
from tunnel.aio.carriers.carrier_errors import (
    MAX_DETAILS_CHARS,
    CarrierLost,
    EnrollmentRefused,
    lost_from_status,
)
from tunnel.aio.carriers.channel import DialOptions, explain_failure, open_channel, release
from tunnel.aio.carriers.methods import JOIN, RECOVER, RENEW
from tunnel.aio.identity.peer_identity import PeerIdentity, Presented, readable_peer
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.core.wire.faults import AUTHORITY_IS_YOURS, BUG, NOT_A_LONGLINE_SERVER, SERVER_SILENT, coded, decoded
from tunnel.core.wire.handshake import MAX_VERSION_CHARS
from tunnel.core.wire.names import MAX_NAME_BYTES
from tunnel.core.wire.spoken import printable, spoken_s

MAX_REQUEST_BYTES = 64 * 1024
"""The longest request: a CSR with the largest RSA key is below 4 KiB."""

_RETRY_AFTER = "longline-retry-after-ms"
"""Trailing metadata of a refusal that passes: after how many milliseconds it is worth asking again."""
_MAX_DIGITS = 9

_log = structlog.get_logger("tunnel.enrollment")
_M = TypeVar("_M", bound=Message)
_Context = grpc.aio.ServicerContext[bytes, bytes]


class EnrollmentHandler(Protocol):
    """Decides on certificates; the methods that answer a box may raise EnrollmentRefused with a text for it."""

    def boxes_left(self, uri: str) -> int:
        """Returns how many boxes may still join with the join certificate of this name; 0 for one that is of no use."""
        ...

    async def join(self, peer: Presented, request: tunnel_pb2.JoinRequest) -> tunnel_pb2.JoinResponse:
        """Returns the first certificate of a box; `peer` is the join certificate that it has."""
        ...

    async def renew(self, peer: Presented, request: tunnel_pb2.RenewRequest) -> tunnel_pb2.RenewResponse:
        """Returns a fresh certificate for an agent; `peer` is the one that it has now."""
        ...

    async def recover(self, peer: Presented, request: tunnel_pb2.RenewRequest) -> tunnel_pb2.RenewResponse:
        """Returns a fresh certificate for an agent that has nothing left but its recovery certificate, `peer`."""
        ...


async def call_join(
    address: str, tls: ClientTls, request: tunnel_pb2.JoinRequest, options: DialOptions
) -> tunnel_pb2.JoinResponse:
    """Asks the server at `address` for the first certificate of a box and returns its answer.

    Raises:
        EnrollmentRefused: the server said no.
        CarrierLost: the server could not be asked.
    """
    answer = await _call(address, tls, JOIN, request.SerializeToString(), options)
    return _parse(tunnel_pb2.JoinResponse, answer, address)


async def call_renew(
    address: str, tls: ClientTls, request: tunnel_pb2.RenewRequest, options: DialOptions
) -> tunnel_pb2.RenewResponse:
    """Asks the server at `address` for a fresh certificate and returns its answer.

    Raises:
        EnrollmentRefused: the server said no.
        CarrierLost: the server could not be asked.
    """
    answer = await _call(address, tls, RENEW, request.SerializeToString(), options)
    return _parse(tunnel_pb2.RenewResponse, answer, address)


async def call_recover(
    address: str, tls: ClientTls, request: tunnel_pb2.RenewRequest, options: DialOptions
) -> tunnel_pb2.RenewResponse:
    """Asks the server at `address` for a fresh certificate, with a recovery certificate, and returns its answer.

    Raises:
        EnrollmentRefused: the server said no.
        CarrierLost: the server could not be asked, or does not know Recover.
    """
    answer = await _call(address, tls, RECOVER, request.SerializeToString(), options)
    return _parse(tunnel_pb2.RenewResponse, answer, address)


async def answer_join(
    handler: EnrollmentHandler | None, identity: PeerIdentity, raw: bytes, context: _Context
) -> bytes:
    """Answers a Join of an authorised peer; a `handler` of None refuses it."""
    request = await _parse_request(tunnel_pb2.JoinRequest, raw, context)
    request.version = printable(request.version, MAX_VERSION_CHARS)
    request.agent_name = printable(request.agent_name, MAX_NAME_BYTES + 1)  # what is too long stays so
    if handler is None:
        await _refuse(context, identity, EnrollmentRefused("this server does not enroll boxes", AUTHORITY_IS_YOURS))
    return await _answer(handler.join(Presented.of(identity, context.auth_context()), request), identity, context)


async def answer_renew(
    handler: EnrollmentHandler | None, identity: PeerIdentity, raw: bytes, context: _Context
) -> bytes:
    """Answers a Renew of an authorised peer; a `handler` of None refuses it."""
    request = await _parse_request(tunnel_pb2.RenewRequest, raw, context)
    if handler is None:
        await _refuse(
            context, identity, EnrollmentRefused("this server does not renew certificates", AUTHORITY_IS_YOURS)
        )
    return await _answer(handler.renew(Presented.of(identity, context.auth_context()), request), identity, context)


async def answer_recover(
    handler: EnrollmentHandler | None, identity: PeerIdentity, raw: bytes, context: _Context
) -> bytes:
    """Answers a Recover of an authorized peer; a `handler` of None refuses it."""
    request = await _parse_request(tunnel_pb2.RenewRequest, raw, context)
    if handler is None:
        await _refuse(
            context, identity, EnrollmentRefused("this server does not renew certificates", AUTHORITY_IS_YOURS)
        )
    return await _answer(handler.recover(Presented.of(identity, context.auth_context()), request), identity, context)


def retry_after(seconds: float) -> tuple[tuple[str, str], ...]:
    """Returns the trailing metadata of a refusal that passes after so many seconds."""
    return ((_RETRY_AFTER, str(round(seconds * 1000))),)


# Internal


async def _call(address: str, tls: ClientTls, method: str, request: bytes, options: DialOptions) -> bytes:
    channel = await open_channel(address, tls, options)
    lost = CarrierLost(f"{address}: no answer within {spoken_s(options.timeout_s)}", fault=SERVER_SILENT, vague=True)
    try:
        async with asyncio.timeout(options.timeout_s):
            return await _invoke(channel, method, request, options)
    except grpc.aio.AioRpcError as error:
        options.saw(error.initial_metadata())
        lost = lost_from_status(error.code(), error.details(), address)
        retry_after_s = _retry_after_s(error.trailing_metadata())
        if error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED) or retry_after_s:
            text, fault = decoded(printable(error.details() or "refused", MAX_DETAILS_CHARS))
            raise EnrollmentRefused(text, fault, retry_after_s) from error
    except TimeoutError:
        pass
    finally:
        release(channel)
    try:
        raise await explain_failure(lost, address, tls, options)
    finally:
        # The error holds this frame: it must hold neither the error, nor a channel, which would dial on.
        del lost, channel


async def _invoke(channel: grpc.aio.Channel, method: str, request: bytes, options: DialOptions) -> bytes:
    invoke: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    call = invoke(request)
    answer = await call
    options.saw(await call.initial_metadata())
    return answer


def _parse(kind: type[_M], raw: bytes, address: str) -> _M:
    try:
        return kind.FromString(raw)
    except DecodeError as fault:
        raise CarrierLost(
            f"{address}: the answer cannot be read; is this a Longline server?", NOT_A_LONGLINE_SERVER
        ) from fault


async def _parse_request(kind: type[_M], raw: bytes, context: _Context) -> _M:
    try:
        return kind.FromString(raw)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request cannot be read")


async def _answer(answer: Awaitable[Message], identity: PeerIdentity, context: _Context) -> bytes:
    try:
        return (await answer).SerializeToString()
    except EnrollmentRefused as refusal:
        await _refuse(context, identity, refusal)
    except Exception:  # noqa: BLE001  # a box must get an answer, and the log the reason
        _log.exception("enrollment failed", code=BUG.code, peer=readable_peer(context.peer()), identity=identity.uri)
        await context.abort(grpc.StatusCode.INTERNAL, "the server failed on this request; its log has the reason")


async def _refuse(context: _Context, identity: PeerIdentity, refusal: EnrollmentRefused) -> NoReturn:
    about = {"peer": readable_peer(context.peer()), "identity": identity.uri}
    _log.warning("enrollment refused", code=refusal.fault.code, reason=refusal.text, **about)
    text = coded(refusal.text, refusal.fault)
    if refusal.retry_after_s:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text, retry_after(refusal.retry_after_s))
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)


def _retry_after_s(metadata: Iterable[tuple[str, str | bytes]] | None) -> float:
    """Returns the advice in the trailing metadata of a refusal, in seconds; 0.0 where none can be read."""
    for name, value in metadata or ():
        if name == _RETRY_AFTER and isinstance(value, str) and value.isdecimal() and len(value) <= _MAX_DIGITS:
            return int(value) / 1000
    return 0.0
