"""One gRPC channel per dial: its address, proxy and credentials, and the explanation when it does not come up.

What is called over the channel is in `carrier.py` and `enrollment.py`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
import grpc.aio

from tunnel.aio.carriers.carrier_errors import CarrierLost
from tunnel.aio.carriers.channel_options import ChannelOptions, agent_options
from tunnel.aio.carriers.credentials import channel_credentials
from tunnel.aio.carriers.grpc_runtime import keep_grpc_running
from tunnel.aio.carriers.methods import clock_ahead
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.aio.sockets.address import split_address
from tunnel.aio.sockets.http_proxy import HttpProxy, proxy_for
from tunnel.core.wire.faults import CONFIG_INVALID, FaultError


@dataclass(frozen=True, slots=True, kw_only=True)
class DialOptions:
    """How to dial a server: deadline, proxy, and who is told of its clock."""

    timeout_s: float = 20.0
    """Seconds until the server must have answered; the explanation of a failure may take 5 s more."""
    proxy: str | None = field(default=None, repr=False)
    """The proxy, as `http_proxy.proxy_for` takes it: a URL, "none", or None for what the environment says."""
    proxy_source: str = "[cloud] proxy"
    """The place where `proxy` is set, for error texts."""
    on_clock: Callable[[timedelta], None] | None = None
    """Is told by how much this machine's clock is ahead of the server's, each time that the server has said its own;
    None when nobody wants to know.
    """

    def proxy_to(self, host: str) -> HttpProxy | None:
        """Returns the proxy that leads to a host; None when there is none.

        Raises:
            ValueError: the proxy cannot be used; the text says where it is named.
        """
        return proxy_for(host, self.proxy, self.proxy_source, os.environ)

    def saw(self, headers: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Takes the headers of an answer, and tells `on_clock` what they say of the server's clock."""
        ahead = clock_ahead(headers or ())
        if ahead is not None and self.on_clock is not None:
            self.on_clock(ahead)


async def open_channel(address: str, tls: ClientTls, options: DialOptions, at: Sequence[str] = ()) -> grpc.aio.Channel:
    """Returns a channel that has not connected yet; `at` is as in `dial_carrier`.

    Raises:
        CarrierLost: the address, the proxy or the certificate cannot be used.
    """
    try:
        host, port = split_address(address)
        arguments = agent_options() + proxy_options(options.proxy_to(host))
        loaded = await asyncio.to_thread(tls.load)
    except FaultError as fault:
        raise CarrierLost(fault.text, fault.fault) from fault
    except ValueError as fault:
        raise CarrierLost(str(fault), CONFIG_INVALID) from fault
    keep_grpc_running()
    if at:
        arguments += [("grpc.ssl_target_name_override", host), ("grpc.default_authority", address)]
    return grpc.aio.secure_channel(
        _target(at, port) if at else address,
        channel_credentials(loaded),
        arguments,
        compression=grpc.Compression.NoCompression,
    )


def _target(addresses: Sequence[str], port: int) -> str:
    """Returns addresses of one family as gRPC takes them: it cannot be given both, and the first is the
    preferred one.
    """
    family = "ipv6" if ":" in addresses[0] else "ipv4"
    written = [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in addresses]
    return f"{family}:{','.join(one for one in written if one.startswith('[') == (family == 'ipv6'))}"


def proxy_options(proxy: HttpProxy | None) -> ChannelOptions:
    """Returns the channel arguments for a proxy, or for none: what gRPC itself would choose plays no part."""
    if proxy is None:
        return [("grpc.enable_http_proxy", 0)]
    return [("grpc.enable_http_proxy", 1), ("grpc.http_proxy", proxy.url)]


def release(channel: grpc.aio.Channel) -> None:
    """Closes a channel whose calls were cancelled, without waiting.

    `Channel.close` is a coroutine only for its grace; without one it runs to its end in one step (tested).
    """
    try:
        channel.close(None).send(None)
    except StopIteration:
        return


async def explain_failure(lost: CarrierLost, address: str, tls: ClientTls, options: DialOptions) -> CarrierLost:
    """Returns an error with a better text for a failed dial where gRPC's own is vague, else the same one.

    Through a proxy gRPC takes each hop for the server.
    """
    if lost.refused:
        return lost
    proxy = options.proxy_to(split_address(address)[0])
    if not lost.vague and proxy is None:
        return lost
    from tunnel.aio.carriers.diagnose import find_fault  # a long way, that an agent at rest never goes

    fault = await find_fault(address, tls, proxy)
    return lost if fault is None else CarrierLost(f"{address}: {fault}", fault.fault)
