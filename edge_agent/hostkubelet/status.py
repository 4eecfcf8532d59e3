"""Makes Kubernetes `Status` objects: how a kubelet tells a client what went wrong, and how a command ended."""

from __future__ import annotations

import json
from typing import Any

from tunnel.core.wire.faults import API_NOT_FOUND, API_REQUEST_INVALID, SHUTTING_DOWN, Fault, FaultError, coded
from tunnel.kubeapi.status import ApiError, Cause

JSON_TYPE = ("content-type", "application/json")

_FAULTS = {400: API_REQUEST_INVALID, 404: API_NOT_FOUND, 503: SHUTTING_DOWN}
"""The faults that HTTP statuses stand for where no closer one is given."""


class KubeletError(FaultError):
    """A request cannot be served.

    Attributes:
        status: the HTTP status code.
        text: one line for the person at the client.
        fault: the cause.
    """

    def __init__(self, status: int, text: str, fault: Fault | None = None) -> None:
        super().__init__(text, fault or _FAULTS.get(status))
        self.status = status

    def body(self) -> bytes:
        """Returns the `Status` for the answer, as JSON. kubectl prints its message; the cause is for whoever looks."""
        return _encode(ApiError(self.status, self.text, cause=Cause(self.fault.code, self.fault.title)).body())


def exit_status(exit_code: int) -> bytes:
    """Returns what the error channel of an exec carries at the end of its command."""
    if exit_code == 0:
        return _encode({"metadata": {}, "status": "Success"})
    text = f"command terminated with non-zero exit code: {exit_code}"
    # Clients take the exit code from the cause and from nowhere else.
    causes = [{"reason": "ExitCode", "message": str(exit_code)}]
    return _encode(ApiError(500, text, "NonZeroExitCode", {"causes": causes}).body())


def failed_status(text: str, fault: Fault) -> bytes:
    """Returns what the error channel of an exec carries when the box itself ended the command."""
    return _encode(ApiError(500, coded(text, fault), cause=Cause(fault.code, fault.title)).body())


def _encode(status: dict[str, Any]) -> bytes:
    return json.dumps(status, separators=(",", ":")).encode()
