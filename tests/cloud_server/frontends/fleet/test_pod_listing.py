"""What is taken of a box's list of pods, and what its Node says of the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from cloud_server.frontends.fleet.pod_fields import NAMES
from cloud_server.frontends.fleet.pod_limits import SHARE_BYTES, PodLimits
from cloud_server.frontends.fleet.pod_listing import Listed, PodListing
from cloud_server.frontends.fleet.pod_names import box_of, key_of, own_name
from tests.support.fleet import pod_list
from tunnel.kubeapi.held import held_bytes
from tunnel.kubeapi.status import Json

PLAIN: Json = json.loads(pod_list("web", "nginx"))["items"][0]


def raw(name: str, namespace: str = "default", **changes: Any) -> Json:
    return {**PLAIN, "metadata": {**PLAIN["metadata"], "name": name, "namespace": namespace}, **changes}


def listed(pods: Iterable[Json], /, others_bytes: int = 0, **limits: int) -> Listed:
    listing = PodListing("box-7", PodLimits(**limits), {})
    for pod in pods:
        listing.add(json.dumps(pod).encode())
    return listing.finish(others_bytes)


def names(result: Listed) -> list[str]:
    return [key_of(pod)[1] for pod in result.pods]


def why(result: Listed) -> str:
    return "" if result.incomplete is None else f"{result.incomplete['reason']}: {result.incomplete['message']}"


def test_what_is_whole_has_no_condition() -> None:
    result = listed([raw("box-7"), raw("web"), raw("web", "shop")])
    assert names(result) == ["box-7", "web.box-7", "web.box-7"]
    assert why(result) == ""
    assert result.held_bytes == sum(held_bytes(pod, NAMES) for pod in result.pods)


def test_of_too_many_pods_the_first_are_shown_and_the_boxs_own() -> None:
    result = listed([raw("a"), raw("b"), raw("c"), raw("box-7")], pods=2)
    assert names(result) == ["a.box-7", "b.box-7", "box-7"]
    assert why(result) == "TooMany: 1 of its pods are more than a box may have, or in more namespaces (default/c.box-7)"


def test_a_box_is_in_so_many_namespaces() -> None:
    result = listed([raw("a", "one"), raw("a", "two"), raw("a", "three"), raw("b", "one")], namespaces=2)
    assert [key_of(pod)[0] for pod in result.pods] == ["one", "two", "one"]
    assert why(result).startswith("TooMany: 1 of its pods")


def test_pods_beyond_the_memory_of_a_box_are_left_out_the_last_first_and_its_own_never() -> None:
    size = listed([raw("web")]).held_bytes
    pods = [*(raw(f"p{number}") for number in range(50)), raw("box-7")]
    result = listed(pods, box_bytes=5 * size + size // 2)
    assert names(result) == ["p0.box-7", "p1.box-7", "p2.box-7", "p3.box-7", "box-7"]
    assert why(result).startswith("TooLarge: 46 of its pods")
    assert why(result).endswith(", ...)")


def test_where_all_boxes_have_much_each_has_its_share() -> None:
    pods = [raw(f"p{number}") for number in range(100)]
    result = listed(pods, others_bytes=1 << 40)
    assert 0 < result.held_bytes <= SHARE_BYTES
    assert why(result).startswith("NoRoom: ")
    assert names(listed(pods, others_bytes=0)) == [f"p{number}.box-7" for number in range(100)]


def test_a_pod_that_is_listed_twice_is_the_first_of_the_two() -> None:
    result = listed([raw("web"), raw("web", spec={"containers": [{"name": "other"}]})])
    assert [pod["spec"]["containers"][0]["name"] for pod in result.pods] == ["nginx"]
    assert why(result).startswith("Malformed: 1 of its pods")


def test_what_a_box_writes_is_in_no_condition() -> None:
    """Names of pods are those of Kubernetes, and names of fields those of the API."""
    evil = raw("web", status={"phase": {"x": "\x1b[2J"}, "\x1b[2J": 1, "podIP": 7})
    result = listed([evil, raw("\x1b[2J")])
    text = "Malformed: 1 of its pods are no pods of Kubernetes, or listed twice; 2 fields are not as the API has them"
    assert why(result) == f"{text} (phase, podIP)"


def test_a_pod_that_has_not_changed_is_kept_as_it_was() -> None:
    (before,) = listed([raw("web")]).pods
    listing = PodListing("box-7", PodLimits(), {key_of(before): before})
    listing.add(json.dumps(raw("web")).encode())
    (same,) = listing.finish(0).pods
    assert same is before
    listing = PodListing("box-7", PodLimits(), {key_of(before): before})
    listing.add(json.dumps(raw("web", status={"phase": "Failed"})).encode())
    (changed,) = listing.finish(0).pods
    assert changed["status"] == {"phase": "Failed"}
    assert changed["spec"] is before["spec"]


@pytest.mark.parametrize(
    ("namespace", "shown", "box", "own"),
    [
        ("default", "box-7", "box-7", "box-7"),
        ("shop", "box-7", "", "box-7"),
        ("shop", "web.box-7", "box-7", "web"),
        ("default", "web.box-8.box-7", "box-7", "web.box-8"),
        ("default", ".box-7", "", ".box-7"),
    ],
)
def test_the_box_is_read_off_the_name(namespace: str, shown: str, box: str, own: str) -> None:
    assert box_of(namespace, shown) == box
    assert own_name(shown) == own
