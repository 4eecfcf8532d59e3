"""Puts error codes into `Status` answers: in `details.causes`, which kubectl does not show and scripts can read."""

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
"""The fault behind an HTTP status when nothing names it more closely; for statuses that are not here it is a bad
request.
"""


def cause(fault: Fault) -> Cause:
    """Returns a fault as a `Status` names it."""
    return Cause(fault.code, fault.title)


def status_body(error: ApiError) -> Json:
    """Returns the `Status` object of an error, with the code of its cause."""
    return error.body(cause(_FAULTS.get(error.code, API_REQUEST_INVALID)))
