"""What a stream is opened to: a TCP address at the far end, or a service that the far end offers by name."""

from __future__ import annotations

from dataclasses import dataclass

MAX_HOST_BYTES = 253
"""Longest DNS name (RFC 1035 2.3.4), without the trailing dot."""
MAX_SERVICE_BYTES = 63


@dataclass(frozen=True, slots=True)
class TcpTarget:
    """A TCP address, resolved and dialled by the accepting side."""

    host: str
    """An IPv4 or IPv6 address without brackets, or a DNS name."""
    port: int
    """The port, 1 to 65535."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """A service inside the accepting daemon, such as `longline/kubelet`."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class UnknownTarget:
    """A target of a kind that only a later build knows. Whoever is asked for it must refuse; it cannot be sent."""

    def __str__(self) -> str:
        return "(a kind of target that is not known here)"


Target = TcpTarget | ServiceTarget | UnknownTarget
