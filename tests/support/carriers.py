"""A carrier server with its own authority, and boxes that may or may not dial it: real gRPC, real mutual TLS."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from tests.support.pki import Authority, Issued
from tunnel.aio.carriers.carrier import Carrier, DialOptions, dial_carrier
from tunnel.aio.carriers.carrier_server import CarrierServer, OnCarrier
from tunnel.aio.carriers.enrollment import EnrollmentHandler
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.identity.tls_material import ClientTls, ServerTls

AGENT = "spiffe://longline/agent/box-7"
DIRECT = DialOptions(timeout_s=10.0, proxy="none")

_AUTHORITY = Authority()
"""One for the whole run; making keys is slow."""
_SERVER = _AUTHORITY.issue(hosts=["127.0.0.1", "::1", "localhost"], uris=["spiffe://longline/server"])
_BOX = _AUTHORITY.issue(uris=[AGENT])


@dataclass(kw_only=True)
class Cloud:
    """A running server."""

    server: CarrierServer
    authority: Authority = field(default_factory=lambda: _AUTHORITY)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.ports[0]}"

    def tls(self, box: Issued | None = None, trusts: Authority | None = None) -> ClientTls:
        """What a box dials with."""
        shown = box or _BOX
        ca = (trusts or self.authority).pem
        return ClientTls(certificate=shown.certificate_pem, key=shown.key_pem, ca=ca)

    async def dial(self, box: Issued | None = None, options: DialOptions = DIRECT, address: str = "") -> Carrier:
        return await dial_carrier(address or self.address, self.tls(box), options)


@contextlib.asynccontextmanager
async def cloud(
    on_carrier: OnCarrier,
    *,
    listen: Sequence[str] = ("127.0.0.1:0",),
    enrollment: EnrollmentHandler | None = None,
    limits: CarrierLimits | None = None,
) -> AsyncIterator[Cloud]:
    """A server that is stopped at the end."""
    tls = ServerTls(certificate=_SERVER.certificate_pem, key=_SERVER.key_pem, client_ca=_AUTHORITY.pem)
    server = CarrierServer(listen, tls, on_carrier, enrollment, limits=limits)
    await server.start()
    try:
        yield Cloud(server=server)
    finally:
        await server.stop(1.0)


async def echo(carrier: Carrier, _uri: str, _spki: bytes) -> None:
    """An owner that sends everything back."""
    while (message := await carrier.read()) is not None:
        await carrier.write(message)
