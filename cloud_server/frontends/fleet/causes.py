"""The error codes in `Status` answers: in `details.causes`, where kubectl shows nothing and scripts can look."""

from __future__ import annotations

from tunnel.core.wire.faults import (
    API_NOT_FOUND,
    API_READ_ONLY,
    API_REQUEST_INVALID,
    BUG,
    CREDENTIAL_MISSING,
    KUBELET_BROKEN,
    KUBELET_SILENT,
    NOT_ALLOWED,
    SHUTTING_DOWN,
    TOO_MANY_STREAMS,
    Fault,
)
from tunnel.kubeapi.status import ApiError, Cause, Json

_FAULTS = {
    401: CREDENTIAL_MISSING,
    403: NOT_ALLOWED,
    404: API_NOT_FOUND,
    405: API_READ_ONLY,
    429: TOO_MANY_STREAMS,
    500: BUG,
    502: KUBELET_BROKEN,
    503: SHUTTING_DOWN,
    504: KUBELET_SILENT,
}
"""The cause behind a status where nothing says it more closely; a bad request for all others."""


def cause(fault: Fault) -> Cause:
    """A fault as a `Status` names it."""
    return Cause(fault.code, fault.title)


def status_body(error: ApiError) -> Json:
    """The `Status` object of an error, with its code."""
    return error.body(cause(_FAULTS.get(error.code, API_REQUEST_INVALID)))
