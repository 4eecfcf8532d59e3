"""The error codes in `Status` answers: the tunnel's own cause where there is one, else that of the status."""

from __future__ import annotations

import pytest

from cloud_server.frontends.fleet.causes import status_body
from cloud_server.frontends.fleet.stream_errors import from_stream_error
from tunnel.core.wire import faults
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import FAULTS
from tunnel.kubeapi.status import ApiError


def code_of(error: ApiError) -> str:
    (cause,) = status_body(error)["details"]["causes"]
    assert cause["message"] == FAULTS[cause["reason"]].title
    return str(cause["reason"])


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (OpenRefused("no", Code.AGENT_AWAY), faults.AGENT_AWAY),
        (OpenRefused("no", Code.NOT_ALLOWED, faults.NOT_ALLOWED_BY_BOX), faults.NOT_ALLOWED_BY_BOX),
        (OpenRefused.from_peer("LL5017: the kubelet is down", Code.UNREACHABLE), faults.REAL_KUBELET_UNREACHABLE),
    ],
)
def test_what_the_far_end_says_reaches_the_status(refused: OpenRefused, code: faults.Fault) -> None:
    assert code_of(from_stream_error(refused, "box-7")) == code.code


@pytest.mark.parametrize(("status", "code"), [(400, "LL5001"), (401, "LL2023"), (404, "LL5002"), (500, "LL6001")])
def test_else_the_status_stands_for_a_cause(status: int, code: str) -> None:
    assert code_of(ApiError(status, "no")) == code
