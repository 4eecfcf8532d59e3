"""Why a TLS handshake failed: one of a few causes, for counters, and a text for people.

OpenSSL (Python's `ssl`) and BoringSSL (gRPC) say the same in nearly the same words, so that one table serves both.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """What a failed handshake is counted as; the values are those of a metric's label."""

    NO_CERTIFICATE = "no_certificate"
    """The peer presented none where one is demanded."""
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    UNKNOWN_AUTHORITY = "unknown_authority"
    BAD_CERTIFICATE = "bad_certificate"
    """Something else is wrong with the peer's certificate, such as what it is meant for."""
    OURS_REFUSED = "ours_refused"
    """The peer does not accept the certificate of this end."""
    PROTOCOL = "protocol"
    """The peer speaks no TLS, or none that is accepted here."""
    TIMED_OUT = "timed_out"
    LEFT = "left"
    """The peer closed the connection: a port scan, or the probe of a load balancer."""


_KNOCKED = frozenset({Cause.PROTOCOL, Cause.TIMED_OUT, Cause.LEFT})
"""What anybody can do who knocks at the port."""
_FOREIGN = "its certificate is not from an authority that is trusted here"
_SIGNS = (
    ("certificate has expired", Cause.EXPIRED, "its certificate has expired"),
    ("certificate is not yet valid", Cause.NOT_YET_VALID, "its certificate is not yet valid: is a clock wrong?"),
    ("unable to get local issuer", Cause.UNKNOWN_AUTHORITY, f"{_FOREIGN} (foreign or old CA)"),
    ("self-signed certificate", Cause.UNKNOWN_AUTHORITY, f"{_FOREIGN} (self-signed)"),
    ("self signed certificate", Cause.UNKNOWN_AUTHORITY, f"{_FOREIGN} (self-signed)"),
    ("certificate signature failure", Cause.UNKNOWN_AUTHORITY, f"{_FOREIGN} (a CA of the same name and another key)"),
    ("unsupported certificate purpose", Cause.BAD_CERTIFICATE, "its certificate is not meant for TLS clients"),
    ("unsuitable certificate purpose", Cause.BAD_CERTIFICATE, "its certificate is not meant for TLS clients"),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", Cause.NO_CERTIFICATE, "it presented no certificate"),
    ("UNKNOWN_CA", Cause.OURS_REFUSED, "it does not trust this server's certificate"),
    ("BAD_CERTIFICATE", Cause.OURS_REFUSED, "it does not accept this server's certificate"),
    ("CERTIFICATE_UNKNOWN", Cause.OURS_REFUSED, "it does not accept this server's certificate"),
    ("CERTIFICATE_EXPIRED", Cause.OURS_REFUSED, "it holds this server's certificate for expired"),
    ("CERTIFICATE_VERIFY_FAILED", Cause.BAD_CERTIFICATE, ""),
    ("HTTP_REQUEST", Cause.PROTOCOL, "it spoke plain HTTP"),
    ("WRONG_VERSION_NUMBER", Cause.PROTOCOL, "it did not speak TLS"),
    ("Socket closed", Cause.LEFT, "it closed the connection"),
    ("Handshake timed out", Cause.TIMED_OUT, "it was silent"),
    ("NO_SHARED_CIPHER", Cause.PROTOCOL, "no cipher is shared"),
    ("UNSUPPORTED_PROTOCOL", Cause.PROTOCOL, "its TLS version is too old"),
)
"""What a library's text contains, what it means, and how it is told; empty: in the library's own words."""
_MAX_TEXT_CHARS = 300


@dataclass(frozen=True, slots=True)
class HandshakeFault:
    """A handshake that failed."""

    cause: Cause
    text: str
    """For people, in a few words."""

    @property
    def of_certificate(self) -> bool:
        """Returns whether a certificate is the cause: somebody has to mend it, while others only knocked and left."""
        return self.cause not in _KNOCKED

    @property
    def of_time(self) -> bool:
        """Returns whether a clock may be the cause."""
        return self.cause in (Cause.EXPIRED, Cause.NOT_YET_VALID) or "expired" in self.text


def understood(text: str) -> HandshakeFault:
    """Returns what a library's text means; what is not in the table is a matter of the protocol."""
    for sign, cause, told in _SIGNS:
        if sign in text:
            return HandshakeFault(cause, told or text[:_MAX_TEXT_CHARS])
    return HandshakeFault(Cause.PROTOCOL, text[:_MAX_TEXT_CHARS])


def fault_of(error: ssl.SSLError) -> HandshakeFault:
    """Returns what an error of Python's `ssl` means."""
    said = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else ""
    return understood(f"{said} {error.reason}" if said else error.reason or "TLS failed")
