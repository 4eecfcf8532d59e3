"""Keeps the box's certificate good: renews it at two thirds of its life without dropping the session, replaces its key,
and gets it back after its end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog

from edge_agent.identity.identity import Identity, IdentityUnusable
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier import DialOptions
from tunnel.aio.carriers.carrier_errors import CarrierLost, EnrollmentRefused
from tunnel.aio.identity.keys import KeysUnavailable
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.core.wire.faults import (
    ANSWER_REFUSED,
    BOX_CERTIFICATE_TIME,
    BOX_NOT_ACCEPTED,
    COPIED_DISK,
    RENEWAL_AHEAD,
    RENEWAL_FAILED,
    Fault,
    fault_of,
)

LOOK_EVERY_S = 300.0
"""The most seconds between two looks at the clock: a wall clock may be set, so one long sleep would not do."""
RETRY_S = 60.0
RETRY_AT_MOST_S = 300.0
"""The most seconds between two tries, after some failures: each costs the server a handshake or two."""
AT_MOST_EVERY_S = 3600.0
"""The least seconds between two renewals: a box whose clock is ahead finds each certificate due at once, however
fresh."""

MAX_ADVISED_S = 3600.0
"""The most seconds that a server may ask the box to wait: several such waits fit into the third of a certificate's life
that is left."""
FAILURES = (IdentityUnusable, KeysUnavailable, EnrollmentRefused, CarrierLost, ValueError, OSError)
"""The errors that keep a box from a fresh certificate, and may pass."""
NOT_LET_IN = (BOX_CERTIFICATE_TIME, BOX_NOT_ACCEPTED)
"""The causes for which a server does not speak with a box whose certificate has ended. By the box's own clock it may be
valid."""
TOLD = (ANSWER_REFUSED, COPIED_DISK, RENEWAL_AHEAD)
"""The causes that the cloud is told of, because somebody has to look."""

_log = structlog.get_logger("edge.renewal")

Dialling = Callable[[], tuple[Sequence[str], DialOptions]]
OnFault = Callable[[Fault | None, str], None]


class Renewals:
    """Makes all of a box's renewals, one after another. Users of the certificate see that its file changes."""

    def __init__(
        self,
        identity: Identity,
        dialling: Dialling,
        key_life: Callable[[], timedelta | None] = lambda: None,
        on_fault: OnFault = lambda _fault, _text: None,
    ) -> None:
        """Asks nobody yet.

        Args:
            identity: whose files are replaced.
            dialling: returns the servers of the moment, and how they are dialled.
            key_life: returns the age at which the box gets another key; None when it never does so by itself.
            on_fault: is told of one of the causes `TOLD`, and of None when it is over.
        """
        self._identity = identity
        self._dialling = dialling
        self._key_life = key_life
        self._on_fault = on_fault
        self._server = 0
        self._one_at_a_time = asyncio.Lock()
        self._not_let_in = asyncio.Event()
        self._failures = 0

    # Public

    async def run(self) -> None:
        """Renews the certificate whenever that is due, until cancelled."""
        while True:
            try:
                left_s, new_key = await self._due()
                if left_s > 0 and not new_key and not self._not_let_in.is_set():
                    await self._pause(min(left_s, LOOK_EVERY_S) * (0.9 + 0.1 * random.random()))  # noqa: S311 - jitter
                    continue
                await self.renew(new_key=new_key)
                await self._pause(AT_MOST_EVERY_S)
            except FAILURES as error:
                unless = None
                if isinstance(error, CarrierLost) and error.fault not in NOT_LET_IN:
                    # No server was reached: once a dial reaches one, and is turned away, there is no more to wait for.
                    unless = self._not_let_in
                    unless.clear()
                await pause(_pause_s(error, self._failures), unless)

    async def renew(self, *, new_key: bool) -> None:
        """Gets a fresh certificate now, for another key when `new_key` is set.

        Raises:
            FAILURES: it was not renewed; the log says why.
        """
        async with self._one_at_a_time:
            try:
                servers, options = self._dialling()
                server = servers[self._server % len(servers)]
                await self._ask(server, options, new_key=new_key)
            except FAILURES as error:
                self._server += 1
                self._failed(error)
                raise
            self._not_let_in.clear()
            self._failures = 0
            self._on_fault(None, "")
            _log.info("certificate renewed", server=server, new_key=new_key)

    def turned_away(self, fault: Fault) -> None:
        """Tells that a dial failed. The cause may be the end of the certificate, whatever this box's clock says."""
        if fault in NOT_LET_IN:
            self._not_let_in.set()

    # Internal

    async def _due(self) -> tuple[float, bool]:
        try:
            return await asyncio.to_thread(self._look)
        except FAILURES as error:
            self._failed(error)
            raise

    def _look(self) -> tuple[float, bool]:
        """Returns for how many seconds the certificate need not be renewed, and whether the key is to be replaced.

        Blocking.

        Raises:
            IdentityUnusable, OSError: the files on the disk cannot be used.
        """
        self._identity.settle()  # as after a crash
        left_s = (self._identity.renewal_due() - datetime.now(UTC)).total_seconds()
        life = self._key_life()
        old = False
        if life is not None:
            made = datetime.fromtimestamp(self._identity.key_path.stat().st_mtime, UTC)
            old = datetime.now(UTC) - made > life
        # A next key is left where its answer did not come.
        return left_s, old or self._identity.next_key_path.exists()

    async def _ask(self, server: str, options: DialOptions, *, new_key: bool) -> None:
        try:
            await self._renew(server, options, new_key=new_key)
        except CarrierLost as lost:
            ended = (await asyncio.to_thread(self._identity.certificate)).validity.not_after <= datetime.now(UTC)
            there = await asyncio.to_thread(self._identity.recovery_path.exists)
            if not there or not (ended or lost.fault in NOT_LET_IN):
                raise
            await self._recover(server, options)

    async def _renew(self, server: str, options: DialOptions, *, new_key: bool) -> None:
        # Here and not above: they bring what an agent at rest does without.
        from edge_agent.identity.certificates import load_key, next_key
        from edge_agent.identity.turn import begin
        from tunnel.aio.carriers.enrollment import call_renew
        from tunnel.aio.identity.keys import request_for

        identity = self._identity
        if new_key:
            key = await asyncio.to_thread(next_key, identity)
        else:
            key = await asyncio.to_thread(load_key, identity.key_path)
        request = tunnel_pb2.RenewRequest(csr_der=await asyncio.to_thread(request_for, key), new_key=new_key)
        turn = await asyncio.to_thread(begin, identity)
        request.turn.CopyFrom(turn.message)
        response = await call_renew(server, identity.tls, request, options)
        await asyncio.to_thread(self._take, response, key, turn.generation)

    async def _recover(self, server: str, options: DialOptions) -> None:
        """Asks with the recovery certificate, for the key that it belongs to. After a crash
        that may be the next key.
        """
        from edge_agent.identity.certificates import load_key
        from edge_agent.identity.turn import begin
        from tunnel.aio.carriers.enrollment import call_recover
        from tunnel.aio.identity.keys import request_for

        identity = self._identity
        path, key = identity.key_path, await asyncio.to_thread(load_key, identity.key_path)
        if not await asyncio.to_thread(identity.fits, identity.recovery_path, key):
            path = identity.next_key_path
            key = await asyncio.to_thread(load_key, path)
        request = tunnel_pb2.RenewRequest(csr_der=await asyncio.to_thread(request_for, key))
        turn = await asyncio.to_thread(begin, identity)
        request.turn.CopyFrom(turn.message)
        tls = ClientTls(certificate=identity.recovery_path, key=path, ca=identity.ca_path)
        await asyncio.to_thread(self._take, await call_recover(server, tls, request, options), key, turn.generation)
        _log.warning("the box's certificate had ended", code=BOX_CERTIFICATE_TIME.code, server=server)

    def _take(self, response: tunnel_pb2.RenewResponse, key: bytes, asked: int) -> None:
        """Use an answer to what was asked with this generation, if it is in order. Blocking."""
        from edge_agent.identity import certificates

        identity = self._identity
        (uri,) = identity.certificate().uris
        answer = certificates.check_answer(response, key, identity.ca_path.read_bytes(), uri, asked)
        certificates.replace(identity, answer)

    def _failed(self, error: BaseException) -> None:
        self._failures += 1
        cause = fault_of(error)
        told = cause in TOLD
        _log.warning(
            "certificate not renewed, trying again",
            code=cause.code if told else RENEWAL_FAILED.code,
            cause=cause.code,
            reason=str(error),
        )
        if told:
            self._on_fault(cause, str(error))

    async def _pause(self, delay_s: float) -> None:
        """Waits, but no longer than until a server turns the box away."""
        await pause(delay_s, self._not_let_in)


def _pause_s(error: BaseException, failures: int) -> float:
    """Returns how many seconds to wait before the next try: not less than a server advised, spread over half more."""
    wait_s = min(RETRY_S * 2.0 ** min(failures - 1, 16), RETRY_AT_MOST_S)
    pause_s, jitter = wait_s * (0.5 + random.random()), random.random()  # noqa: S311
    if isinstance(error, EnrollmentRefused):
        pause_s = max(pause_s, min(error.retry_after_s, MAX_ADVISED_S) * (1.0 + 0.5 * jitter))
    return pause_s


async def pause(delay_s: float, unless: asyncio.Event | None = None) -> None:
    """Waits for some seconds, or until an event is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(delay_s):
            await (unless or asyncio.Event()).wait()
