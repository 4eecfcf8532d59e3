from __future__ import annotations

import pytest

from cloud_server.frontends.fleet import discovery
from tunnel.kubeapi.status import ApiError


@pytest.mark.parametrize(
    ("user_agent", "minor"),
    [
        ("kubectl/v1.31.14 (linux/amd64) kubernetes/abc", "31"),
        ("kubectl/v1.37.1 (linux/arm64)", "37"),
        ("kubectl/v1.5.0", "37"),
        ("curl/8", "37"),
        (None, "37"),
    ],
)
def test_the_version_is_the_clients_own(user_agent: str | None, minor: str) -> None:
    document = discovery.version_document(user_agent)
    assert document["minor"] == minor
    assert document["gitVersion"].startswith(f"v1.{minor}.0+longline-")


def test_both_forms_of_discovery_list_the_same_resources() -> None:
    aggregated = discovery.aggregated(True, "v2")["items"][0]["versions"][0]["resources"]
    names = {item["resource"] for item in aggregated}
    names |= {f"{item['resource']}/{sub['subresource']}" for item in aggregated for sub in item.get("subresources", ())}
    legacy = {item["name"] for item in discovery.api_resource_list("", "v1")["resources"]}
    assert names == legacy
    assert {"nodes", "pods", "pods/exec", "pods/log", "namespaces"} <= names
    groups = [item["metadata"]["name"] for item in discovery.aggregated(False, "v2")["items"]]
    assert groups == [item["name"] for item in discovery.api_group_list()["groups"]]
    for group in groups:
        assert discovery.api_group(group)["name"] == group
        version = discovery.api_group(group)["preferredVersion"]["version"]
        assert discovery.api_resource_list(group, version)["resources"]


def test_groups_that_are_not_there_are_404() -> None:
    with pytest.raises(ApiError):
        discovery.api_group("policy")
    with pytest.raises(ApiError):
        discovery.api_resource_list("policy", "v1")
