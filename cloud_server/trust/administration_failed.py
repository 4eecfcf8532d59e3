"""Declares the error of everything that an operator asks for."""

from __future__ import annotations

from tunnel.core.wire.faults import STATE_NOT_WRITABLE, FaultError


class AdministrationFailed(FaultError):
    """What an operator asked for was not done, and nothing was changed. The text says why and what to do."""

    default_fault = STATE_NOT_WRITABLE

    @classmethod
    def of(cls, error: FaultError) -> AdministrationFailed:
        """Returns the error with the text and the fault of another error of ours."""
        return cls(error.text, error.fault)
