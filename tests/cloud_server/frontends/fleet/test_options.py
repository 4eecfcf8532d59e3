"""Options of lists and watches; what a real API server answers to them is compared in tests/compat."""

from __future__ import annotations

import pytest

from cloud_server.frontends.fleet.options import check_list, check_version
from tunnel.kubeapi.list_options import Query, check_watch_options
from tunnel.kubeapi.status import ApiError

NOW = 1000


def _query(**options: str) -> Query:
    return Query(list(options.items()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resourceVersion": "0"},
        {"resourceVersion": "999"},
        {"resourceVersion": "1000", "resourceVersionMatch": "Exact"},
        {"resourceVersion": "0", "resourceVersionMatch": "NotOlderThan"},
        {"timeoutSeconds": "5"},
    ],
)
def test_lists_that_can_be_had(options: dict[str, str]) -> None:
    check_list(_query(**options), NOW)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"resourceVersion": "1001"}, 504),
        ({"resourceVersion": "999", "resourceVersionMatch": "Exact"}, 410),
        ({"resourceVersion": "0", "resourceVersionMatch": "Exact"}, 422),
        ({"resourceVersion": "5", "resourceVersionMatch": "Exact", "continue": "x"}, 422),
        ({"sendInitialEvents": "false"}, 422),
        ({"timeoutSeconds": "soon"}, 400),
    ],
)
def test_lists_that_cannot(options: dict[str, str], code: int) -> None:
    with pytest.raises(ApiError) as refused:
        check_list(_query(**options), NOW)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"sendInitialEvents": "true"}, "resourceVersionMatch"),
        ({"sendInitialEvents": "true", "resourceVersionMatch": "Exact"}, "resourceVersionMatch"),
        ({"resourceVersionMatch": "NotOlderThan"}, "resourceVersionMatch"),
    ],
)
def test_watches_that_cannot_be_had(options: dict[str, str], field: str) -> None:
    with pytest.raises(ApiError) as refused:
        check_watch_options(_query(**options))
    assert refused.value.details is not None
    assert refused.value.details["causes"][0]["field"] == field


def test_a_version_that_has_not_come_is_worth_another_try() -> None:
    with pytest.raises(ApiError) as refused:
        check_version(_query(resourceVersion="2000"), NOW)
    assert refused.value.details is not None
    assert refused.value.details["retryAfterSeconds"] == 1
