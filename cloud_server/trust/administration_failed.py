"""The error of everything that an operator asks for."""

from __future__ import annotations

from tunnel.core.wire.faults import STATE_NOT_WRITABLE, FaultError


class AdministrationFailed(FaultError):
    """Nothing was changed; the text says why and what to do."""

    default_fault = STATE_NOT_WRITABLE

    @classmethod
    def of(cls, error: FaultError) -> AdministrationFailed:
        """For what a part of ours could not do."""
        return cls(error.text, error.fault)
