"""Writes what the audit log says of opens: one record when one begins, one when it ends, or one when it is refused."""

from __future__ import annotations

import time

from cloud_server.opens.live import LiveOpen
from cloud_server.trust.caller import Caller
from tunnel.aio.operate.audit import Audit
from tunnel.core.wire.errors import OpenRefused
from tunnel.core.wire.faults import OPENS_TOO_FAST
from tunnel.core.wire.principal import PrincipalKind
from tunnel.core.wire.target import Target

MAX_TARGET_CHARS = 300
"""The longest target in a record, in characters. What a client asked for is its own text, of up to a whole head; a DNS
name has up to 253.
"""
_KINDS = {kind: kind.label for kind in PrincipalKind}


class OpenRecords:
    """The writer of the records of opens."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def admit(self) -> None:
        """Returns when an open may go on.

        Raises:
            AuditUnavailable: it could not be recorded, and that is a must.
        """
        self._audit.admit()

    def opened(self, live: LiveOpen) -> None:
        """Writes that an open begins, which must be before the first byte moves."""
        live.recorded = True
        request = live.request
        if request.is_read:
            # By no agent: there may be thousands, and a record of each would bury the rest.
            principal = request.caller.principal
            about = {"frontend": request.frontend, "kind": _KINDS[principal.kind], "who": principal.name}
            self._audit.record_folded("read", (principal.name, *request.about.values()), **about, **request.about)
            return
        stream = live.stream
        self._audit.record(
            "open",
            **_who(live),
            **_what(live),
            resolved=stream.resolved_address if stream is not None else None,
            **{"class": request.traffic_class.name.lower()},
            early_bytes=len(request.early_data),
            **request.about,
        )

    def ended(self, live: LiveOpen) -> None:
        """Writes that a stream is over."""
        if live.request.is_read:
            return
        stream = live.opened()
        counts, error = stream.statistics(), stream.error
        self._audit.record(
            "end",
            **_who(live),
            **_what(live),
            resolved=stream.resolved_address,
            bytes_to_agent=counts.bytes_sent,
            bytes_from_agent=counts.bytes_received,
            seconds=_seconds(live),
            code=None if error is None else error.fault.code,
            reason="closed" if error is None else error.code.label,
            text="" if error is None else str(error),
            **live.outcome,
        )

    def refused(self, live: LiveOpen, refused: OpenRefused) -> None:
        """Writes that nothing was opened, and why."""
        request = live.request
        fields = {
            **_who(live),
            **_what(live),
            "asked": request.asked[:MAX_TARGET_CHARS],
            "seconds": _seconds(live),
            "code": refused.fault.code,
            "reason": refused.code.label,
            "text": str(refused),
            **request.about,
            **live.outcome,
        }
        if request.is_read:
            self._audit.record_folded("refused", (request.caller.principal.name, live.agent, refused.code), **fields)
        elif refused.fault is OPENS_TOO_FAST:  # there are many, and each was refused before it was looked at
            key = (request.frontend, request.caller.principal.name, refused.fault.code)
            self._audit.record_folded("refused", key, **fields)
        else:
            self._audit.record("refused", **fields)

    def turned_down(self, caller: Caller, frontend: str, agent: str, target: Target, refused: OpenRefused) -> None:
        """Writes that an agent's open was refused before it came to the door; folded by agent and cause."""
        principal = caller.principal
        self._audit.record_folded(
            "refused",
            (frontend, agent, refused.fault.code),
            frontend=frontend,
            kind=_KINDS[principal.kind],
            who=principal.name,
            agent=agent,
            target=str(target),
            code=refused.fault.code,
            reason=refused.code.label,
            text=str(refused),
        )


def _who(live: LiveOpen) -> dict[str, object]:
    request = live.request
    principal = request.caller.principal
    return {
        "trace_id": request.trace_id,
        "id": live.id,
        "frontend": request.frontend,
        "kind": _KINDS[principal.kind],
        "who": principal.name,
        "proof": principal.proof,
        "peer": request.peer,
    }


def _what(live: LiveOpen) -> dict[str, object]:
    target = str(live.target) if live.target is not None else live.request.asked[:MAX_TARGET_CHARS]
    what: dict[str, object] = {"agent": live.agent, "target": target, "rule": live.rule}
    if live.tried:
        what["tried"] = live.tried
    return what


def _seconds(live: LiveOpen) -> float:
    return round(time.monotonic() - live.started_s, 3)
