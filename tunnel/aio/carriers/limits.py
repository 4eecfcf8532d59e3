"""What the tunnel's port takes at a time, from whom; each number with its reason."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CarrierLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CarrierLimits:
    """What peers may hold at the tunnel's port beside a session, whose bounds are in `tunnel/core/wire/limits.py`."""

    connections: int = 16_384
    """How many connections one listening address takes in all; gRPC closes those beyond as soon as it has accepted
    them. 10,000 boxes, and as many again as come back while their old connections are not yet known to be dead.
    """
    waiting: int = 500
    """How many connections without a call there may be: in their TLS handshake, or behind it. One in its handshake
    costs up to 60 kB, so that strangers hold 30 MB. From an address where boxes were seen last, as many more may come
    as there are boxes: after a restart, all of them come back at once.
    """
    waiting_per_address: int = 450
    """How many of them one IPv4 address or IPv6 /64 may have. It may be a NAT or a balancer with thousands of boxes
    behind it, which all come back at once; the rest is for others.
    """
    call_timeout_s: float = 10.0
    """After how many seconds without a call a connection is closed. A box calls as soon as it has shaken hands."""
    requests: int = 32
    """How many Join, Renew and Recover calls may run at once. gRPC takes a message of up to 1 MiB before it shows it,
    so these are 32 MB at the most; the rest is told to ask again.
    """
    requests_per_address: int = 24
    """How many of them one IPv4 address or IPv6 /64 may have; the rest is for others."""
    requests_per_identity: int = 2
    """How many may have one certificate's name. A box has one at a time, and one that its last link left behind."""
    requests_per_token: int = 16
    """How many may come with one join token that is for many boxes: as many as may still join with it, up to half of
    all, so that a token in wrong hands leaves the other half to others.
    """
    request_timeout_s: float = 10.0
    """How many seconds such a call may take in all, from its headers to its answer."""
    first_message_timeout_s: float = 10.0
    """How many seconds a link may be silent after its call has begun. A box says Hello at once."""
    max_silent: int = 4096
    """How many carriers may have sent no message yet, at 116 kB each. Whoever has one certificate gets two of them, so
    that this is for boxes: a refusal comes after a whole handshake, and thousands that come back at once to a busy
    server, of which 1,024 were let in, were refused 3,435 times.
    """
    max_silent_per_address: int = 3072
    """How many may come from one IP address, which may be a NAT or a balancer with thousands of boxes behind it."""
    max_silent_per_identity: int = 2
    """How many may have one name: a box's dial, and one that its last link left behind. The newest stays."""
