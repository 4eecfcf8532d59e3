"""One gRPC channel per dial: address, proxy, credentials, and the explanation when it does not come up.

What is called over the channel is in `carrier.py` and `enrollment.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import grpc
import grpc.aio

from tunnel.aio.carriers.carrier_errors import CarrierLost
from tunnel.aio.carriers.channel_options import ChannelOptions, agent_options
from tunnel.aio.carriers.credentials import channel_credentials
from tunnel.aio.carriers.grpc_runtime import keep_grpc_running
from tunnel.aio.identity.tls_material import ClientTls, CredentialsUnusable
from tunnel.aio.sockets.address import split_address

NO_PROXY = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class DialOptions:
    """How to dial."""

    timeout_s: float = 20.0
    """Until the server has answered; the explanation of a failure may take 5 s more."""
    proxy: str | None = field(default=None, repr=False)
    """`http://[user:password@]host:port` of an HTTP CONNECT proxy, or "none"; None asks the environment
    (`grpc_proxy`, `https_proxy`, `http_proxy`). The exceptions in `no_grpc_proxy` or `no_proxy` hold for both."""


async def open_channel(address: str, tls: ClientTls, options: DialOptions) -> grpc.aio.Channel:
    """A channel that has not connected yet.

    Raises:
        CarrierLost: the address, the proxy or the certificate cannot be used.
    """
    try:
        split_address(address)
        arguments = agent_options() + proxy_options(options.proxy)
        loaded = await asyncio.to_thread(tls.load)
    except (ValueError, CredentialsUnusable) as fault:
        raise CarrierLost(str(fault)) from fault
    keep_grpc_running()
    return grpc.aio.secure_channel(
        address, channel_credentials(loaded), arguments, compression=grpc.Compression.NoCompression
    )


def proxy_options(proxy: str | None) -> ChannelOptions:
    """The channel arguments for `DialOptions.proxy`.

    Raises:
        ValueError: it is not an address of an HTTP proxy.
    """
    if proxy is None:
        return []
    if proxy == NO_PROXY:
        return [("grpc.enable_http_proxy", 0)]
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme == "http" and parts.hostname and parts.port
    except ValueError:
        usable = False
    if not usable:
        # The text does not repeat it: there may be a password inside.
        raise ValueError('the proxy must be "none" or like http://host:port or http://user:password@host:port')
    return [("grpc.enable_http_proxy", 1), ("grpc.http_proxy", proxy)]


def release(channel: grpc.aio.Channel) -> None:
    """Close a channel whose calls were cancelled, without waiting.

    `Channel.close` is a coroutine only for its grace; without one it runs to its end in one step (tested).
    """
    try:
        channel.close(None).send(None)
    except StopIteration:
        return


async def explain_failure(lost: CarrierLost, address: str, tls: ClientTls, options: DialOptions) -> CarrierLost:
    """A better text for a failed dial, where gRPC's own is vague."""
    if not lost.vague:
        return lost
    from tunnel.aio.carriers.diagnose import (
        find_fault,  # brings the X.509 library, 10 MB that an agent at rest does without
    )

    fault = await find_fault(address, tls, options.proxy)
    return lost if fault is None else CarrierLost(f"{address}: {fault}")
