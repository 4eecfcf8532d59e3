"""Strategic merge patches: the cases of apimachinery's own rules, and that a difference makes what it is to make."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.kubeapi.strategic_merge import difference, merged

KEYS = {"status.conditions": "type", "status.ips": "ip"}


def status(**content: Any) -> dict[str, Any]:
    return {"status": content}


def condition(kind: str, value: str, **more: str) -> dict[str, str]:
    return {"type": kind, "status": value, **more}


READY, DISK = condition("Ready", "True", reason="r"), condition("Disk", "False")


@pytest.mark.parametrize(("base", "patch", "wanted"), [
    (status(a=1, b={"c": 1}), status(b={"d": 2}), status(a=1, b={"c": 1, "d": 2})),
    (status(a=1, b=2), status(a=None), status(b=2)),
    (status(b={"c": 1, "d": 2}), status(b={"$patch": "replace", "e": 3}), status(b={"e": 3})),
    (status(b={"c": 1}), status(b={"$patch": "delete"}), status()),
    (status(list=[1, 2]), status(list=[3]), status(list=[3])),
    (status(list=[1, 2, 3]), {"status": {"$deleteFromPrimitiveList/list": [2]}}, status(list=[1, 3])),
    (status(conditions=[READY, DISK]), status(conditions=[condition("Ready", "False")]),
     status(conditions=[condition("Ready", "False", reason="r"), DISK])),
    (status(conditions=[READY]), status(conditions=[DISK]), status(conditions=[READY, DISK])),
    (status(conditions=[READY, DISK]), status(conditions=[{"$patch": "delete", "type": "Ready"}]),
     status(conditions=[DISK])),
    (status(conditions=[READY]), status(conditions=[{"$patch": "replace"}, DISK]), status(conditions=[DISK])),
    (status(conditions=[READY, DISK]),
     {"status": {"$setElementOrder/conditions": [{"type": "Disk"}, {"type": "Ready"}]}},
     status(conditions=[DISK, READY])),
    (status(), status(conditions=[READY]), status(conditions=[READY])),
])  # fmt: skip
def test_a_patch(base: dict[str, Any], patch: dict[str, Any], wanted: dict[str, Any]) -> None:
    before = repr(base)
    assert merged(base, patch, KEYS) == wanted
    assert repr(base) == before


def test_an_element_that_cannot_be_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"status\.conditions without type"):
        merged(status(), status(conditions=[{"status": "True"}]), KEYS)


def test_others_conditions_stay_when_ours_are_told() -> None:
    """Two write the conditions of a node; what one of them did not change is not its to say."""
    ours = difference(status(conditions=[READY, DISK]), status(conditions=[condition("Ready", "False"), DISK]), KEYS)
    theirs = status(conditions=[READY, condition("Disk", "True")])
    assert merged(theirs, ours, KEYS) == status(conditions=[condition("Ready", "False"), condition("Disk", "True")])


def test_an_element_that_differs_is_told_as_a_whole() -> None:
    """Who else has changed another member of it meanwhile does not leave it half as they have it."""
    before, after = condition("Ready", "True", since="1", reason="r"), condition("Ready", "True", since="2")
    ours = difference(status(conditions=[before, DISK]), status(conditions=[after, DISK]), KEYS)
    theirs = status(conditions=[condition("Ready", "False", since="1", reason="away"), DISK])
    assert merged(theirs, ours, KEYS) == status(conditions=[after, DISK])


_texts = st.text("ab", min_size=1, max_size=3)
_conditions = st.lists(st.fixed_dictionaries({"type": _texts, "status": _texts}, optional={"reason": _texts}),
                       max_size=4)  # fmt: skip
_statuses = st.fixed_dictionaries({}, optional={
    "phase": _texts, "conditions": _conditions, "names": st.lists(_texts, max_size=3),
    "inner": st.fixed_dictionaries({}, optional={"a": _texts, "b": st.integers()}),
})  # fmt: skip


def _as_text(element: dict[str, Any]) -> str:
    return json.dumps(element, sort_keys=True)


@given(_statuses, _statuses)
def test_a_difference_makes_what_is_wanted(before: dict[str, Any], wanted: dict[str, Any]) -> None:
    made = merged({"status": before}, {"status": difference(before, wanted, KEYS, "status")}, KEYS)["status"]
    for one in (made, wanted):
        one["conditions"] = sorted(one.get("conditions") or [], key=_as_text)  # elements keep the places they had
    assert made == wanted
