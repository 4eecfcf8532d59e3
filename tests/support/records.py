"""Audit records kept in a list, for tests of who writes them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from tunnel.aio.operate.audit import AuditUnavailable


class Records:
    """Takes records as an AuditLog does, and keeps them."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.fault = ""
        """Set: nothing is let in, for this reason."""

    def record(self, event: str, **fields: object) -> None:
        self.lines.append({"event": event, **fields})

    def record_folded(self, event: str, key: Hashable, **fields: object) -> None:
        self.record(event, **fields)

    def admit(self) -> None:
        if self.fault:
            raise AuditUnavailable(self.fault)

    def of(self, *events: str) -> list[dict[str, Any]]:
        """Returns those of these events."""
        return [line for line in self.lines if line["event"] in events]
