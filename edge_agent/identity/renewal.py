"""Renews the box's certificate at two thirds of its life, without dropping its session."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from edge_agent.identity.identity import Identity, IdentityUnusable
from edge_agent.identity.keys import KeysUnavailable
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier import DialOptions
from tunnel.aio.carriers.carrier_errors import CarrierLost, EnrollmentRefused
from tunnel.core.wire.faults import RENEWAL_FAILED, fault_of

LOOK_EVERY_S = 300.0
"""The most seconds between two looks at the clock: a wall clock may be set, so one long sleep would not do."""
RETRY_S = 60.0
AT_MOST_EVERY_S = 3600.0
"""The least seconds between two renewals: a box whose clock is ahead finds each certificate due at once, however
fresh."""

MAX_ADVISED_S = 3600.0
"""The longest wait that a server may ask for: several fit into the third of a certificate's life that is left."""

_log = structlog.get_logger("edge.renewal")


async def keep_fresh(identity: Identity, dialling: Callable[[], tuple[Sequence[str], DialOptions]]) -> None:
    """Renews the certificate for ever; who uses it sees that its file changes.

    Args:
        identity: the identity whose files are replaced.
        dialling: returns the servers of the moment, and how they are dialled.
    """
    server_index = 0
    while True:
        try:
            due = await asyncio.to_thread(identity.renewal_due)
            left_s = (due - datetime.now(UTC)).total_seconds()
            if left_s > 0:
                await asyncio.sleep(min(left_s, LOOK_EVERY_S) * (0.9 + 0.1 * random.random()))  # noqa: S311 - jitter
                continue
            servers, options = dialling()
            await _renew(identity, servers[server_index % len(servers)], options)
            await asyncio.sleep(AT_MOST_EVERY_S)
        except (IdentityUnusable, KeysUnavailable, EnrollmentRefused, CarrierLost, ValueError, OSError) as error:
            server_index += 1
            _log.warning(
                "certificate not renewed, trying again",
                code=RENEWAL_FAILED.code,
                cause=fault_of(error).code,
                reason=str(error),
            )
            await asyncio.sleep(_pause_s(error))


def _pause_s(error: BaseException) -> float:
    """Returns how many seconds to wait before the next try: not less than a server advised, spread over half more."""
    pause_s, jitter = RETRY_S * (0.5 + random.random()), random.random()  # noqa: S311
    if isinstance(error, EnrollmentRefused):
        pause_s = max(pause_s, min(error.retry_after_s, MAX_ADVISED_S) * (1.0 + 0.5 * jitter))
    return pause_s


async def _renew(identity: Identity, server: str, options: DialOptions) -> None:
    # Here and not above: they bring what an agent at rest does without.
    from edge_agent.identity.certificates import check_answer, load_key, replace
    from edge_agent.identity.keys import request_for
    from tunnel.aio.carriers.enrollment import call_renew

    key = await asyncio.to_thread(load_key, identity)
    request = tunnel_pb2.RenewRequest(csr_der=await asyncio.to_thread(request_for, key))
    response = await call_renew(server, identity.tls, request, options)
    answer = await asyncio.to_thread(check_answer, response.chain_der, response.ca_pem, key)
    await asyncio.to_thread(replace, identity, answer)
    _log.info("certificate renewed", server=server)
