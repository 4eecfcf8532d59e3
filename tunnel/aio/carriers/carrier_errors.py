"""The errors of carriers and enrollment calls, and a text for people for each gRPC status.

gRPC's errors end here: everything above sees `CarrierLost` or `EnrollmentRefused`.
"""

from __future__ import annotations

import asyncio
import re

import grpc
import grpc.aio

from tunnel.core.wire.faults import (
    BOX_NOT_ACCEPTED,
    ENROLLMENT_REFUSED,
    LINK_BROKE,
    NOT_A_LONGLINE_SERVER,
    SERVER_UNREACHABLE,
    Fault,
    FaultError,
    decoded,
)
from tunnel.core.wire.spoken import printable

GRPC_ERRORS = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""The errors that grpc.aio raises from reads and writes: the status, its own faults, and use after the end."""

_REFUSALS = {
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_CLEAR = (
    (re.compile(r"Connection refused"), "connection refused: nothing listens there"),
    (re.compile(r"Network is unreachable|ENETUNREACH"), "network unreachable"),
    (re.compile(r"No route to host|EHOSTUNREACH"), "no route to host"),
)
_VAGUE = (
    (re.compile(r"keepalive watchdog|[Pp]ing timeout|Connection timed out|ETIMEDOUT"), "no sign of life"),
    (re.compile(r"Connection reset|ECONNRESET"), "connection reset"),
    (re.compile(r"Broken pipe|EPIPE|Socket closed|GOAWAY|Endpoint closing|End of TCP stream"), "connection closed"),
)
MAX_DETAILS_CHARS = 2048
"""The longest text of a call's status that is looked at; gRPC's own are a few hundred characters."""
_SOURCE_TRACE = re.compile(r"\s*=== Source Location Trace.*", re.DOTALL)


class CarrierLost(FaultError):
    """The carrier cannot be used, or could not be made.

    Attributes:
        text: one line for a person: which hop, and where possible what to do.
        refused: the server understood us and said no; dialling again at once will not help.
        vague: gRPC did not say which hop failed; `diagnose` may.
        fault: the cause; see `FaultError`.
    """

    default_fault = LINK_BROKE

    def __init__(self, text: str, fault: Fault | None = None, *, refused: bool = False, vague: bool = False) -> None:
        super().__init__(text, fault)
        self.refused = refused
        self.vague = vague

    def again(self) -> CarrierLost:
        """Returns a new error that says the same.

        One that is kept and raised holds the frames of whoever raised it, with the call in them, and so a TCP
        connection.
        """
        return CarrierLost(self.text, self.fault, refused=self.refused, vague=self.vague)


class EnrollmentRefused(FaultError):
    """The server will not issue a certificate; the text says why.

    Attributes:
        retry_after_s: how long the server asks us to wait; 0.0 means that it gave no advice.
    """

    default_fault = ENROLLMENT_REFUSED

    def __init__(self, text: str, fault: Fault | None = None, retry_after_s: float = 0.0) -> None:
        super().__init__(text, fault)
        self.retry_after_s = retry_after_s


def lost_from_status(code: grpc.StatusCode, details: str | None, peer: str) -> CarrierLost:
    """Returns the error for a status that ended a call to or from `peer`."""
    text, fault = decoded(printable(_SOURCE_TRACE.sub("", details or "").strip(), MAX_DETAILS_CHARS))
    if code in _REFUSALS:
        return CarrierLost(f"{peer}: {text or code.name.lower()}", fault or BOX_NOT_ACCEPTED, refused=True)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return CarrierLost(
            f"{peer} is not a Longline server, or one of another version: {text}", NOT_A_LONGLINE_SERVER, refused=True
        )
    if code is grpc.StatusCode.OK:
        return CarrierLost(f"{peer}: the other side ended the call")
    for pattern, plain in _CLEAR:
        if pattern.search(text):
            return CarrierLost(f"{peer}: {plain}", SERVER_UNREACHABLE)
    return CarrierLost(f"{peer}: {_plain(text) or code.name.lower()}", vague=True)


def lost_from_error(error: BaseException, peer: str) -> CarrierLost:
    """Returns the error for whatever grpc.aio raised in a call to or from `peer`."""
    if isinstance(error, grpc.aio.AioRpcError):
        return lost_from_status(error.code(), error.details(), peer)
    return CarrierLost(f"{peer}: connection closed")


# Internal


def _plain(details: str) -> str:
    for pattern, text in _VAGUE:
        if pattern.search(details):
            return text
    return " ".join(details.split())[:300]
