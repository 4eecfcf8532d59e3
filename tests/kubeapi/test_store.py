from __future__ import annotations

import pytest

from tunnel.kubeapi.status import ApiError, Json
from tunnel.kubeapi.store import ObjectStore


def _pod(name: str, **status: str) -> Json:
    return {"metadata": {"name": name, "namespace": "default"}, "status": status}


def test_the_same_object_again_is_no_change() -> None:
    store = ObjectStore(100)
    store.put("pods", _pod("a", phase="Running"))
    store.put("pods", _pod("a", phase="Running"))
    assert store.version == 101
    store.put("pods", _pod("a", phase="Failed"))
    assert store.version == 102
    item = store.get("pods", ("default", "a"))
    assert item is not None
    assert item["metadata"]["resourceVersion"] == "102"


def test_changes_tell_what_came_changed_and_went() -> None:
    store = ObjectStore(100)
    heard: list[int] = []
    unsubscribe = store.subscribe(lambda: heard.append(store.version))
    store.put("pods", _pod("a"))
    store.put("nodes", {"metadata": {"name": "n"}})
    store.put("pods", _pod("a", phase="x"))
    store.remove("pods", ("default", "a"))
    store.remove("pods", ("default", "a"))
    unsubscribe()
    store.put("pods", _pod("b"))
    changes = store.changes_after(100, "pods")
    assert [(each.version, each.before is None, each.after is None) for each in changes] == [
        (101, True, False),
        (103, False, False),
        (104, False, True),
        (105, True, False),
    ]
    assert [each.version for each in store.changes_after(103, "pods")] == [104, 105]
    assert heard == [101, 102, 103, 104]


def test_a_past_that_is_not_kept_and_a_future_are_410() -> None:
    store = ObjectStore(100, history_changes=3)
    for number in range(5):
        store.put("pods", _pod(f"p{number}"))
    assert len(store.changes_after(102, "pods")) == 3
    for version in (99, 101, 106):
        with pytest.raises(ApiError) as caught:
            store.changes_after(version, "pods")
        assert caught.value.code == 410


def test_lists_are_sorted_and_by_namespace() -> None:
    store = ObjectStore(1)
    for namespace, name in (("b", "x"), ("a", "z"), ("a", "y")):
        store.put("pods", {"metadata": {"name": name, "namespace": namespace}})
    assert [item["metadata"]["name"] for item in store.items("pods")] == ["y", "z", "x"]
    assert [item["metadata"]["name"] for item in store.items("pods", "b")] == ["x"]
    assert store.items("nodes") == []


def test_the_past_is_bounded_in_bytes_and_each_kind_pays_for_itself() -> None:
    store = ObjectStore(100, history_bytes=200_000)
    for number in range(20):
        store.put("nodes", {"metadata": {"name": "n"}, "status": {"number": number}})
    for number in range(200):
        store.put("pods", _pod("a", text=f"{number}" * 10_000))
        assert store.history_held_bytes <= 200_000
    assert len(store.changes_after(100, "nodes")) == 20
    with pytest.raises(ApiError) as caught:
        store.changes_after(100, "pods")
    assert caught.value.code == 410
    kept = store.changes_after(store.version - 3, "pods")
    assert [each.version for each in kept] == [store.version - 2, store.version - 1, store.version]


def test_changes_come_a_few_at_a_time() -> None:
    store = ObjectStore(100)
    for number in range(5):
        store.put("pods", _pod("a", number=str(number)))
        store.put("nodes", {"metadata": {"name": "n"}, "status": number})
    assert [each.version for each in store.changes_after(100, "pods", 2)] == [101, 103]
    assert [each.version for each in store.changes_after(103, "pods", 10)] == [105, 107, 109]


def test_states_of_one_object_share_what_is_equal() -> None:
    store = ObjectStore(100)
    spec = {"containers": [{"name": "c"}]}
    for phase in ("Pending", "Running"):
        store.put("pods", {**_pod("a", phase=phase), "spec": {"containers": [{"name": "c"}]}})
    before, after = store.changes_after(100, "pods")[1].before, store.get("pods", ("default", "a"))
    assert before is not None
    assert after is not None
    assert after["spec"] == spec
    assert after["spec"] is before["spec"]
