from __future__ import annotations

import pytest

from tunnel.kubeapi.selectors import parse, parse_labels
from tunnel.kubeapi.status import ApiError, Json

BOX: Json = {
    "metadata": {"name": "box-7", "namespace": "default", "labels": {"site": "north", "longline/rank": "12", "e": ""}},
    "spec": {"nodeName": "box-7"},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", True),
        ("site=north", True),
        ("site==north", True),
        (" site = north ", True),
        ("site=south", False),
        ("site!=south", True),
        ("site!=north", False),
        ("absent!=x", True),
        ("site in (north, south)", True),
        ("site in (south)", False),
        ("site notin (south,west)", True),
        ("site notin (north)", False),
        ("absent notin (x)", True),
        ("site", True),
        ("absent", False),
        ("!absent", True),
        ("! site", False),
        ("longline/rank>11", True),
        ("longline/rank>12", False),
        ("longline/rank<13", True),
        ("site>1", False),
        ("absent<1", False),
        ("e=", True),
        ("site=", False),
        ("site=north,longline/rank=12", True),
        ("site in (a,north),longline/rank=13", False),
        ("in=1", False),
        ("notin", False),
    ],
)
def test_label_selectors_mean_what_they_mean_in_kubernetes(selector: str, selected: bool) -> None:
    assert parse("pods", selector, "").matches(BOX) is selected


@pytest.mark.parametrize("selector", ["=x", "a=b,", ",a", "a b", "a in", "a in (", "a in (b c)", "a=b c", "Ü=1", "a>x"])
def test_a_label_selector_that_cannot_be_read_is_400(selector: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_labels(selector)
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("resource", "selector", "selected"),
    [
        ("pods", "metadata.name=box-7", True),
        ("pods", "metadata.name==box-8", False),
        ("pods", "spec.nodeName=box-7,status.phase!=Succeeded,status.phase!=Failed", True),
        ("pods", "status.phase!=Running", False),
        ("pods", "status.podIP=", True),
        ("nodes", "spec.unschedulable=false", True),
        ("nodes", "spec.unschedulable=true", False),
        ("events", "involvedObject.uid=1,involvedObject.kind=Node", False),
    ],
)
def test_field_selectors(resource: str, selector: str, selected: bool) -> None:
    assert parse(resource, "", selector).matches(BOX) is selected


@pytest.mark.parametrize("selector", ["spec.bogus=1", "metadata.name", "metadata.name>1"])
def test_a_field_that_is_not_known_is_400(selector: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse("pods", "", selector)
    assert caught.value.code == 400


def test_a_selector_has_a_bound() -> None:
    with pytest.raises(ApiError):
        parse_labels("a=b," * 10_000)
