"""Informers of client-go at the API proxy of a node: they hold what those hold that ask the API server itself, whatever
happens on the way, and their handlers hear each change once.

The same informers run in four processes: at the API server; at the proxy as a ServiceAccount, which lists and then
watches; the same by WatchList, where client-go compares what came with a list; and at the proxy as the node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import aggregated
from tests.e2e.cluster.aggregated import aggregated_api
from tests.e2e.cluster.api_writer import ApiWriter, api_writer
from tests.e2e.cluster.informing import WATCH_LIST, Followed, Informers, faults, informing
from tests.e2e.cluster.proxied import NODE, ProxiedApi, ProxiedApis
from tests.support.agent_status import status_of
from tests.support.kubectl_user import KubectlUser
from tests.support.tunnel import wait_until
from tests.support.waits import sooner_than

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

GROUP = "longline.test"
INSIDE = "followed"
"""The namespace of what is written."""
PROXIED = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
FOLLOWED = [
    Followed(name="services", resource="services", labels=PROXIED, fields="spec.clusterIP!=None"),
    Followed(name="slices", group="discovery.k8s.io", resource="endpointslices", labels=PROXIED),
    Followed(name="config", resource="configmaps", how="json"),
    Followed(name="seen", resource="configmaps", labels="seen=yes", resync_s=1.0),
    Followed(name="secrets", resource="secrets", how="metadata"),
    Followed(name="widgets", group=GROUP, resource="widgets", how="json"),
    Followed(name="leases", group="coordination.k8s.io", resource="leases"),
]
AS_NODE = [
    Followed(name="node", resource="nodes", fields=f"metadata.name={NODE}"),
    Followed(name="pods", resource="pods", fields=f"spec.nodeName={NODE}"),
    Followed(name="all services", resource="services", fields="spec.clusterIP!=None"),
]
KEPT = [one for one in FOLLOWED if one.how != "metadata"]
"""What the proxy answers itself; the rest passes."""


@dataclass(kw_only=True)
class Watched:
    """An API server, and all who follow it."""

    place: ProxiedApi
    writer: ApiWriter
    admin: KubectlUser
    """The ServiceAccount, at the proxy."""
    direct: Informers
    listing: Informers
    streaming: Informers
    node: Informers
    versions: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    """Of what was written: by the name of the resource, uid and version."""

    def write(self, resource: str, said: dict[str, Any]) -> None:
        metadata = said["metadata"]
        self.versions.setdefault(resource, set()).add((metadata["uid"], int(metadata["resourceVersion"])))

    def agree(self) -> None:
        """Wait until everybody holds the same, and see that no handler heard what it should not."""
        wait_until(self._is_same, "all informers hold the same", 40)
        for who in (self.listing, self.streaming):
            calls = who.calls()
            for one in KEPT:
                assert not faults(calls[one.name], resyncs=bool(one.resync_s)), one.name
        calls = self.node.calls()
        for one in AS_NODE:
            assert not faults(calls[one.name]), one.name

    def heard_all(self) -> None:
        """See that what was written was heard, all of it."""
        for name, resource in (("services", "services"), ("slices", "slices"), ("config", "configmaps"),
                               ("widgets", "widgets")):  # fmt: skip
            for who in (self.direct, self.listing, self.streaming):
                heard = {(call.uid, call.version) for call in who.calls()[name] if call.word in ("add", "update")}
                assert self.versions[resource] <= heard

    def _is_same(self) -> bool:
        wanted = self.direct.stores()
        if None in wanted.values() or self.listing.stores() != wanted or self.streaming.stores() != wanted:
            return False
        own = self.node.stores()
        services = self.writer.read("/api/v1/services")["items"]
        return own["pods"] is not None and set(own["all services"] or {}) == {key_of(one) for one in services}


def _write(watched: Watched, turn: str) -> None:
    """Make, change and remove objects of each kind; one is removed and made again."""
    writer = watched.writer
    maps, services = f"/api/v1/namespaces/{INSIDE}/configmaps", f"/api/v1/namespaces/{INSIDE}/services"
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{INSIDE}/endpointslices"
    widgets = f"/apis/{GROUP}/v1/namespaces/{INSIDE}/widgets"
    for number in range(6):
        name = f"{turn}-{number}"
        watched.write("configmaps", writer.create(maps, metadata={"name": name, "labels": {"seen": "yes"}}))
        watched.write("services", writer.create(
            services, metadata={"name": name}, spec={"ports": [{"port": 80}], "selector": {"app": name}}
        ))  # fmt: skip
        watched.write("slices", writer.create(
            slices, metadata={"name": name}, addressType="IPv4", endpoints=[{"addresses": [f"10.9.0.{number}"]}]
        ))  # fmt: skip
        watched.write("widgets", writer.create(
            widgets, apiVersion=f"{GROUP}/v1", kind="Widget", metadata={"name": name}, spec={"size": number}
        ))  # fmt: skip
        for label in ("no", "yes", "no"):
            change = {"labels": {"seen": label}}
            watched.write("configmaps", writer.merge(f"{maps}/{name}", metadata=change))
        watched.write("slices", writer.merge(f"{slices}/{name}", endpoints=[{"addresses": [f"10.8.0.{number}"]}]))
        watched.write("widgets", writer.merge(f"{widgets}/{name}", spec={"size": -number}))
        if number == 0:
            pod = {"containers": [{"name": "it", "image": "none"}], "nodeName": NODE}
            writer.create(f"/api/v1/namespaces/{INSIDE}/pods", metadata={"name": turn}, spec=pod)
        if number % 2:
            for path in (maps, services, slices, widgets):
                writer.delete(f"{path}/{name}")
    watched.write("configmaps", writer.create(maps, metadata={"name": f"{turn}-1", "labels": {"seen": "yes"}}))


@pytest.fixture(scope="module")
def watched(proxied_apis: ProxiedApis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("informers")
    place = proxied_apis.get()
    api, user = place.control.api, place.account("follower", "cluster-admin")
    api.apply(_widgets(), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": INSIDE}})
    api.kubectl("wait", "crd", f"widgets.{GROUP}", "--for=condition=Established")
    account = ("get", "serviceaccount", "default", "-n", INSIDE, "--ignore-not-found", "-o", "name")
    wait_until(lambda: api.kubectl(*account), "pods may be made")
    admin, direct = user.kubeconfig, api.kubeconfig
    with contextlib.ExitStack() as stack:
        yield Watched(
            place=place, writer=stack.enter_context(api_writer(direct)), admin=user,
            direct=stack.enter_context(informing(direct, FOLLOWED, folder / "direct.log")),
            listing=stack.enter_context(informing(admin, FOLLOWED, folder / "listing.log")),
            streaming=stack.enter_context(informing(admin, FOLLOWED, folder / "streaming.log", WATCH_LIST)),
            node=stack.enter_context(informing(place.node.kubeconfig, AS_NODE, folder / "node.log")),
        )  # fmt: skip


def test_what_happens_is_heard_once(watched: Watched) -> None:
    watched.agree()
    _write(watched, "online")
    watched.agree()
    watched.heard_all()


def test_what_happens_while_the_way_is_cut_is_heard_once(watched: Watched) -> None:
    with watched.place.cut():
        wait_until(lambda: not _autonomy(watched)["reached"], "the cut is noticed", 15)
        _write(watched, "cut")
    watched.agree()
    watched.heard_all()


def test_an_agent_that_is_killed_costs_nobody_a_list(watched: Watched) -> None:
    watched.place.box.agent.kill()
    _write(watched, "killed")
    watched.place.box.agent.start().wait_ready()
    watched.agree()
    watched.heard_all()


def test_a_new_default_of_a_custom_resource_is_seen(watched: Watched, tmp_path: Path) -> None:
    """The objects show it under the versions that they have: nobody has written them."""
    place = watched.place
    place.control.api.apply(_widgets(color={"type": "string", "default": "blue"}))
    first = f"/apis/{GROUP}/v1/namespaces/{INSIDE}/widgets/online-0"
    wait_until(lambda: watched.writer.read(first)["spec"].get("color") == "blue", "the default counts", 20)
    everywhere = f"/apis/{GROUP}/v1/widgets?resourceVersion=0"
    wait_until(lambda: '"color":"blue"' in watched.admin.kubectl("get", "--raw", everywhere), "it is shown", 20)
    widgets = [one for one in FOLLOWED if one.name == "widgets"]
    with informing(watched.admin.kubeconfig, widgets, tmp_path / "another.log", WATCH_LIST) as another:
        wanted = {"widgets": watched.direct.stores()["widgets"]}
        wait_until(lambda: another.stores() == wanted, "another one finds nothing to complain of", 20)
    watched.agree()


def test_an_aggregated_api_passes(watched: Watched) -> None:
    control = watched.place.control
    with aggregated_api(control.api, control.pki):
        path = f"/apis/{aggregated.GROUP}/v1/{aggregated.NAME}"
        for target in (path, f"{path}?resourceVersion=0"):
            with sooner_than(5, "a list that is not kept"):
                assert watched.admin.kubectl("get", "--raw", target) == control.api.kubectl("get", "--raw", target)


def test_an_api_server_that_starts_again_has_forgotten_and_nobody_notices(watched: Watched) -> None:
    daemon = watched.place.control.api.daemon
    daemon.kill()
    watched.writer.close()
    daemon.start()
    watched.place.control.api.wait_ready()
    _write(watched, "restarted")
    watched.agree()


def test_what_the_api_server_has_forgotten_is_heard_as_what_differs(watched: Watched) -> None:
    daemon = watched.place.control.api.daemon
    with watched.place.cut():
        daemon.kill()
        watched.writer.close()
        daemon.start()
        watched.place.control.api.wait_ready()
        _write(watched, "forgotten")
    watched.agree()


# Internal


def _autonomy(watched: Watched) -> dict[str, Any]:
    return dict(status_of(watched.place.box)[1]["autonomy"])


def key_of(item: dict[str, Any]) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _widgets(**properties: dict[str, Any]) -> dict[str, Any]:
    """The definition of a custom resource, with these fields in its `spec` beside whatever is in there."""
    spec = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": properties}
    schema = {"type": "object", "properties": {"spec": spec}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
