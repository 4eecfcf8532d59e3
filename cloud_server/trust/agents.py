"""The agents that joined: one file each in the state folder, with the key that the name belongs to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from tunnel.aio.identity.validity import Validity
from tunnel.aio.process.files import SECRET, make_folder, write_atomic
from tunnel.core.wire.errors import Code, TunnelError
from tunnel.core.wire.faults import AGENT_KEY_DIFFERS, AGENT_RECORDS_UNREADABLE, AGENT_REVOKED
from tunnel.core.wire.names import is_agent_name

_log = structlog.get_logger("cloud.agents")

FOLLOW_S = 1.0
"""How soon a running server sees what a command changed: a revocation, say."""


FORGET = "run cloud-server agent forget on the server"
"""The way back with the user's own authority, where there are no tokens."""


class IdentityRejected(TunnelError):
    """A certificate does not stand for the agent (any more); the text is for the box's owner."""

    default_code = Code.IDENTITY_REJECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """One agent."""

    name: str
    joined: datetime
    spki_sha256: str
    """Of the public key that the name belongs to; hexadecimal."""
    revoked: datetime | None = None
    validity: Validity | None = None
    """Of the certificate that it was given last; None when that is not known: it is not of our making, say."""


class AgentStore:
    """The agents of a state folder. Look-ups are in memory; files are read by `reload` and `follow`."""

    def __init__(self, state: Path, *, pins_unknown: bool) -> None:
        """`pins_unknown`: certificates come from the user's own authority, so the first key seen is the name's key."""
        self._folder = state / "agents"
        self._pins_unknown = pins_unknown
        self._records: dict[str, AgentRecord] = {}
        self._stamp: tuple[int, int] | None = None
        self._changing = threading.RLock()
        """Held while files and records are brought together, which happens in threads since files block."""

    # Public - KnownAgents

    def names(self) -> Iterable[str]:
        """Every agent that joined and was not revoked."""
        return [name for name, record in self._records.items() if record.revoked is None]

    def joined(self, name: str) -> datetime | None:
        """When an agent joined; None when it did not, or was revoked."""
        record = self._records.get(name)
        return record.joined if record is not None and record.revoked is None else None

    def validity(self, name: str) -> Validity | None:
        """Of an agent's certificate, where that is known and the agent was not revoked."""
        record = self._records.get(name)
        return record.validity if record is not None and record.revoked is None else None

    # Public - IdentityCheck

    async def check(self, name: str, spki_sha256: bytes) -> None:
        """Returns when a certificate's key is the name's.

        Raises:
            IdentityRejected: revoked, unknown, or another key.
        """
        record = self._records.get(name)
        if record is None and self._pins_unknown and is_agent_name(name):
            record = await asyncio.to_thread(self._pin, name, spki_sha256)
        if record is None:
            raise IdentityRejected(f"{name} has not joined here: run edge-agent join with a token of this server")
        way_back = FORGET if self._pins_unknown else "run edge-agent join with a new token"
        if record.revoked is not None:
            raise IdentityRejected(f"{name} was revoked: {way_back}", fault=AGENT_REVOKED)
        if record.spki_sha256 != spki_sha256.hex():
            raise IdentityRejected(
                f"{name} belongs to another key: a second box needs its own name; else {way_back}",
                fault=AGENT_KEY_DIFFERS,
            )

    # Public - changes

    def get(self, name: str) -> AgentRecord | None:
        """One agent, revoked or not."""
        return self._records.get(name)

    def record(self, name: str, spki_sha256: bytes) -> AgentRecord:
        """Give a name to a key, in place of any earlier one. Blocks.

        Raises:
            OSError: the state folder cannot be written; nothing was changed.
        """
        with self._changing:
            record = AgentRecord(name=name, joined=datetime.now(UTC), spki_sha256=spki_sha256.hex())
            self._write(record)
            return record

    def certified(self, name: str, validity: Validity) -> None:
        """Note how long the certificate is good that an agent was given. Blocks.

        Raises:
            OSError: the state folder cannot be written; nothing was changed.
        """
        with self._changing:
            if (record := self._records.get(name)) is not None:
                self._write(replace(record, validity=validity))

    def revoke(self, name: str) -> bool:
        """Take a name away; False when nobody has it. Blocks.

        Raises:
            OSError: the state folder cannot be written; nothing was changed.
        """
        with self._changing:
            record = self._records.get(name)
            if record is None:
                return False
            self._write(replace(record, revoked=datetime.now(UTC)))
            return True

    def forget(self, name: str) -> bool:
        """Know nothing of a name any more, as if it had never joined; False when nobody has it. Blocks.

        Raises:
            OSError: the state folder cannot be written; nothing was changed.
        """
        with self._changing:
            if name not in self._records:
                return False
            (self._folder / f"{name}.json").unlink(missing_ok=True)
            self._records = {other: record for other, record in self._records.items() if other != name}
            return True

    def reload(self) -> None:
        """Read what other processes changed. Blocks.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._changing:
            try:
                stat = self._folder.stat()
            except FileNotFoundError:
                return
            stamp = (stat.st_mtime_ns, stat.st_ino)
            # A folder that changed within the last second may change again without a new time stamp.
            fresh = datetime.now(UTC).timestamp() - stat.st_mtime < 2 * FOLLOW_S
            if stamp == self._stamp and not fresh:
                return
            self._records = dict(filter(None, map(_read, self._folder.glob("*.json"))))
            self._stamp = stamp

    async def follow(self, on_revoked: Callable[[str, TunnelError], None]) -> None:
        """Watch the folder until cancelled; `on_revoked` is told of each agent that lost its name."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            before = self._records
            try:
                await asyncio.to_thread(self.reload)
            except OSError as error:
                _log.warning(
                    "the agents' files cannot be read, going on with what is known",
                    code=AGENT_RECORDS_UNREADABLE.code,
                    reason=str(error),
                )
                continue
            for name, record in before.items():
                now = self._records.get(name)
                if record.revoked is None and (now is None or now.revoked is not None):
                    on_revoked(name, IdentityRejected(f"{name} was revoked", fault=AGENT_REVOKED))

    # Internal

    def _pin(self, name: str, spki_sha256: bytes) -> AgentRecord:
        """Give a name to the first key that comes with it."""
        with self._changing:
            try:
                return self._records.get(name) or self.record(name, spki_sha256)
            except OSError as error:
                _log.error(
                    "the key of a new agent cannot be kept",
                    code=AGENT_RECORDS_UNREADABLE.code,
                    agent=name,
                    reason=str(error),
                )
                raise IdentityRejected(
                    "the server cannot write its state folder; its log says more", fault=AGENT_RECORDS_UNREADABLE
                ) from error

    def _write(self, record: AgentRecord) -> None:
        make_folder(self._folder)
        values = {
            "name": record.name,
            "joined": record.joined.isoformat(),
            "spki_sha256": record.spki_sha256,
            "revoked": record.revoked.isoformat() if record.revoked is not None else None,
        }
        if record.validity is not None:
            ends = (record.validity.not_before, record.validity.not_after)
            values["certificate_from"], values["certificate_until"] = (moment.isoformat() for moment in ends)
        write_atomic(self._folder / f"{record.name}.json", json.dumps(values).encode(), SECRET)
        self._records = {**self._records, record.name: record}


def _read(path: Path) -> tuple[str, AgentRecord] | None:
    try:
        values = json.loads(path.read_text())
        revoked = values["revoked"]
        record = AgentRecord(
            name=values["name"],
            joined=datetime.fromisoformat(values["joined"]),
            spki_sha256=values["spki_sha256"],
            revoked=datetime.fromisoformat(revoked) if revoked is not None else None,
            validity=_validity(values),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.error(
            "an agent's file cannot be read; the agent is refused",
            code=AGENT_RECORDS_UNREADABLE.code,
            file=str(path),
            reason=str(error),
        )
        return None
    return record.name, record


def _validity(values: dict[str, str]) -> Validity | None:
    ends = [values.get("certificate_from"), values.get("certificate_until")]
    begin, end = (datetime.fromisoformat(text) if text is not None else None for text in ends)
    return Validity(begin, end) if begin is not None and end is not None else None
