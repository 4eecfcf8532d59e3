"""Knows the agents that joined: which key each name belongs to, and whether it still does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from cloud_server.trust.records import AGENTS, SIGHTINGS, AgentRecord
from cloud_server.trust.store import Change, Conflict, Record, Store, StoreUnavailable, Unreadable, value_of
from tunnel.aio.identity.validity import Validity
from tunnel.core.wire.errors import Code, SessionRefused, TunnelError
from tunnel.core.wire.faults import AGENT_KEY_DIFFERS, AGENT_REVOKED, RECORD_UNREADABLE, Fault
from tunnel.core.wire.names import is_agent_name

_log = structlog.get_logger("cloud.agents")

FORGET = "run cloud-server agent forget on the server"
"""The way back for a box with the user's own authority, where there are no tokens."""
ANOTHER_TOKEN = "run edge-agent join with a new token"  # noqa: S105 - what to do, not a token
UNREADABLE_RETRY_S = 15.0
"""Seconds after which a box is to ask again whose record cannot be read: it is nothing that the box did."""

OnLost = Callable[[str, TunnelError], None]
"""A function that is told of each agent that lost its name, and why."""


class IdentityRejected(TunnelError):
    """A certificate does not stand for the agent, or not any more, for as long as nobody does something about it. The
    text is for the box's owner.
    """

    default_code = Code.IDENTITY_REJECTED

    def __init__(self, text: str, *, fault: Fault | None = None, mended_here: bool = False) -> None:
        """`mended_here` says that a command on the server may put it right, without anybody at the box."""
        super().__init__(text, fault=fault)
        self.mended_here = mended_here


class JoinedAgents:
    """The agents that a store has records of."""

    def __init__(self, store: Store, *, pins_unknown: bool) -> None:
        """Reads the records of `store`. `pins_unknown` says that certificates come from the user's own authority, so
        that the first key seen is the name's key.
        """
        self._store = store
        self._pins_unknown = pins_unknown

    # Public - KnownAgents

    def names(self) -> Iterable[str]:
        """Returns the names of all agents that joined and were not revoked, also those whose records cannot be read."""
        return [record.key for record in self._store.list(AGENTS) if not _is_revoked(record)]

    def joined(self, name: str) -> datetime | None:
        """Returns when an agent joined; None when it did not, or was revoked, or that cannot be read."""
        record = self.get(name)
        return record.joined if record is not None and record.revoked is None else None

    def validity(self, name: str) -> Validity | None:
        """Returns the period in which an agent's certificate is valid; None when that is not known, or the agent was
        revoked.
        """
        record = self.get(name)
        return record.validity if record is not None and record.revoked is None else None

    # Public - IdentityCheck

    async def check(self, name: str, spki_sha256: bytes) -> None:
        """Returns when a certificate's key is the name's.

        Raises:
            IdentityRejected: the name was revoked, is unknown, or belongs to another key.
            SessionRefused: that cannot be told now.
        """
        digest = spki_sha256.hex()
        if not self._is_good(name, digest):
            self._store.catch_up()  # a command may have changed that just now
        found = self._store.get(AGENTS, name)
        if found is None and self._pins_unknown and is_agent_name(name):
            found = await self._pin(name, digest)
        if found is None:
            raise IdentityRejected(f"{name} has not joined here: run edge-agent join with a token of this server")
        record = value_of(found)
        if record is None:
            text = f"the server cannot read what it keeps of {name}; its log says more"
            raise SessionRefused(text, Code.INTERNAL, UNREADABLE_RETRY_S, RECORD_UNREADABLE)
        way_back = FORGET if self._pins_unknown else ANOTHER_TOKEN
        if record.revoked is not None:
            why = f" ({record.reason})" if record.reason else ""
            text = f"{name} was revoked{why}: {way_back}"
            raise IdentityRejected(text, fault=AGENT_REVOKED, mended_here=self._pins_unknown)
        if record.spki_sha256 != digest:
            text = f"{name} belongs to another key: a second box needs its own name; else {way_back}"
            raise IdentityRejected(text, fault=AGENT_KEY_DIFFERS, mended_here=self._pins_unknown)

    # Public

    def get(self, name: str) -> AgentRecord | None:
        """Returns the record of one agent, revoked or not, as it is known; None when it did not join, or that cannot be
        read.
        """
        return value_of(self._store.get(AGENTS, name))

    def when_lost(self, on_lost: OnLost) -> None:
        """Makes `on_lost` be called for each agent that loses its name from now on, whoever takes it away."""

        def changed(name: str, before: Record[AgentRecord] | None, after: Record[AgentRecord] | None) -> None:
            if before is None or _is_revoked(before):
                return
            if after is None:
                on_lost(name, IdentityRejected(f"{name} was taken off the server's list"))
            elif _is_revoked(after):
                on_lost(name, IdentityRejected(f"{name} was revoked", fault=AGENT_REVOKED))

        self._store.watch(AGENTS, changed)

    def when_joined(self, on_joined: Callable[[str, bool], None]) -> None:
        """Makes `on_joined` be called for each agent that joins from now on, with True if another key had its name."""

        def changed(name: str, before: Record[AgentRecord] | None, after: Record[AgentRecord] | None) -> None:
            old, new = value_of(before), value_of(after)
            if new is None or new.revoked is not None:
                return
            if old is None or old.spki_sha256 != new.spki_sha256 or old.revoked is not None:
                on_joined(name, old is not None and old.spki_sha256 != new.spki_sha256)

        self._store.watch(AGENTS, changed)

    async def certified(self, name: str, validity: Validity) -> None:
        """Stores how long the certificate that an agent was given is valid.

        Raises:
            StoreUnavailable: that cannot be written; nothing was changed.
        """
        await self._change(name, lambda record: replace(record, validity=validity))

    async def revoke(self, name: str, reason: str = "") -> bool:
        """Takes a name away. Returns False when nobody has it.

        Raises:
            StoreUnavailable: that cannot be written, or the record cannot be read and so not be kept; nothing was
                changed.
        """
        now = datetime.now(UTC)
        return await self._change(name, lambda record: replace(record, revoked=now, reason=reason))

    async def forget(self, name: str) -> bool:
        """Forgets a name, as if it had never joined. Returns False when nobody has it.

        Raises:
            StoreUnavailable: that cannot be written; nothing was changed.
        """
        self._store.catch_up()
        if self._store.get(AGENTS, name) is None:
            return False
        await self._store.commit(Change(AGENTS, name, None), Change(SIGHTINGS, name, None))
        return True

    # Internal

    def _is_good(self, name: str, digest: str) -> bool:
        record = self.get(name)
        return record is not None and record.revoked is None and record.spki_sha256 == digest

    async def _pin(self, name: str, digest: str) -> Record[AgentRecord] | None:
        """Gives a name to the first key that comes with it. Returns the record of the name, which is another key's when
        that came first.

        Raises:
            SessionRefused: that cannot be kept now.
        """
        record = AgentRecord(name=name, joined=datetime.now(UTC), spki_sha256=digest)
        try:
            await self._store.commit(Change(AGENTS, name, record, expected=0))
        except Conflict:
            self._store.catch_up()  # another key came first
        except StoreUnavailable as fault:
            _log.error("the key of a new agent cannot be kept", code=fault.fault.code, agent=name, reason=str(fault))
            text = "the server cannot write its state folder; its log says more"
            raise SessionRefused(text, Code.INTERNAL, UNREADABLE_RETRY_S, fault.fault) from fault
        return self._store.get(AGENTS, name)

    async def _change(self, name: str, change: Callable[[AgentRecord], AgentRecord]) -> bool:
        """Changes a record, and does so anew when somebody else changed it at the same time. Returns False when there
        is none.

        Raises:
            StoreUnavailable: the record cannot be read, or the change cannot be written.
        """
        self._store.catch_up()
        while (found := self._store.get(AGENTS, name)) is not None:
            record = value_of(found)
            if record is None:
                assert isinstance(found, Unreadable)
                text = f"what is kept of {name} cannot be read ({found.reason}): forget it, then join"
                raise StoreUnavailable(text, RECORD_UNREADABLE)
            try:
                await self._store.commit(Change(AGENTS, name, change(record), expected=found.version))
            except Conflict:
                self._store.catch_up()
                continue
            return True
        return False


def _is_revoked(record: Record[AgentRecord]) -> bool:
    """Returns whether a record is known to be revoked: one that cannot be read is not."""
    known = value_of(record)
    return known is not None and known.revoked is not None
