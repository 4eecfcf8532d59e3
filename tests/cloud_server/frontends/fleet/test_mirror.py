"""How the store follows agents and their pods, and what a box cannot do to the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from cloud_server.frontends.fleet import mirror as mirror_module
from cloud_server.frontends.fleet.kubelet import KubeletReader
from cloud_server.frontends.fleet.mirror import Mirror
from cloud_server.frontends.fleet.pod_limits import PodLimits
from cloud_server.frontends.fleet.resources import NAMESPACES
from tests.support.doors import Doors, who
from tests.support.fleet import START, FakeOpener, FakeRegistry, Kubelet, acceptor, box, pod_list
from tests.support.joined import joined
from tests.support.waits import eventually
from tunnel.aio.http.http1 import ServerConnection
from tunnel.aio.sockets.duplex import Duplex
from tunnel.kubeapi.store import ObjectStore

pytestmark = pytest.mark.timeout(30)


def _listing(body: Callable[[], bytes], status: int = 200) -> Kubelet:
    async def serve(duplex: Duplex) -> None:
        http = ServerConnection(duplex)
        while await http.next_request():
            await http.respond(status, (), body())
        await duplex.aclose()

    return serve


def _pods(*names: str, namespace: str = "default") -> bytes:
    return json.dumps(
        {
            "items": [
                {"metadata": {"name": name, "namespace": namespace}, "spec": {"containers": [{"name": "c"}]}}
                for name in names
            ]
        }
    ).encode()


class Running:
    def __init__(self, mirror: Mirror, store: ObjectStore, opener: FakeOpener) -> None:
        self.mirror = mirror
        self.store = store
        self.opener = opener

    def pods(self) -> dict[str, str]:
        """Pods by `namespace/name`, and the agent that has each."""
        return {
            f"{item['metadata']['namespace']}/{item['metadata']['name']}": item["spec"]["nodeName"]
            for item in self.store.items("pods")
        }

    def phase(self, name: str) -> str:
        """Of a pod in the default namespace; empty when there is none."""
        pod = self.store.get("pods", ("default", name))
        return str(pod["status"]["phase"]) if pod else ""

    def containers(self, name: str) -> int:
        pod = self.store.get("pods", ("default", name))
        return len(pod["spec"]["containers"]) if pod else 0


@asynccontextmanager
async def _mirroring(registry: FakeRegistry, **kubelets: Kubelet) -> AsyncIterator[Running]:
    opener = FakeOpener(registry)
    store = ObjectStore(1)
    mirror = Mirror(registry, KubeletReader(Doors(opener).door, who().server("fleet")), store, lambda: START)
    async with contextlib.AsyncExitStack() as stack:
        for name, kubelet in kubelets.items():
            opener.pairs[name] = await stack.enter_async_context(joined(acceptor(kubelet)))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(mirror.run())
            yield Running(mirror, store, opener)
            running.cancel()


async def test_agents_come_go_and_are_removed() -> None:
    registry = FakeRegistry(box("a", connected=False))
    async with _mirroring(registry) as it:
        await eventually(lambda: it.store.get("nodes", ("", "a")))
        registry.put(box("b"))
        await eventually(lambda: it.store.get("nodes", ("", "b")))
        assert it.mirror.names() == ["a", "b"]
        registry.remove("a")
        await eventually(lambda: it.store.get("nodes", ("", "a")) is None)
        assert it.pods() == {"default/b": "b"}


async def test_changes_that_were_lost_are_found_at_once() -> None:
    registry = FakeRegistry(box("a", connected=False))
    async with _mirroring(registry) as it:
        await eventually(lambda: it.store.get("nodes", ("", "a")))
        registry.lose(box("b"))
        await eventually(lambda: it.pods() == {"default/a": "a", "default/b": "b"})
        registry.put(box("c"))
        await eventually(lambda: it.store.get("nodes", ("", "c")))


async def test_thousands_of_agents_do_not_hold_up_the_event_loop() -> None:
    count = 20 * mirror_module.AGENTS_AT_A_TIME
    registry = FakeRegistry(*(box(f"box-{number}") for number in range(count)))
    async with _mirroring(registry) as it:
        seen = [0]
        while seen[-1] < count:
            await asyncio.sleep(0)
            seen.append(len(it.store.items("nodes")))
        assert max(after - before for before, after in pairwise(seen)) <= mirror_module.AGENTS_AT_A_TIME


async def test_pods_are_asked_for_at_each_connection_and_kept_while_away() -> None:
    registry = FakeRegistry(box("a"))
    async with _mirroring(registry, a=_listing(lambda: pod_list("a", "host", "nginx"))) as it:
        await eventually(lambda: it.containers("a") == 2)
        assert len(it.opener.opened) == 1
        registry.change("a", connected=False, since=START.replace(hour=4))
        await eventually(lambda: it.phase("a") == "Unknown")
        assert it.containers("a") == 2
        registry.change("a", connected=True, since=START.replace(hour=5))
        await eventually(lambda: it.phase("a") == "Running")
        await eventually(lambda: len(it.opener.opened) == 2)


async def test_no_box_takes_the_name_of_another() -> None:
    registry = FakeRegistry(box("a"), box("b", connected=False))
    async with _mirroring(registry, a=_listing(lambda: _pods("a", "b", "web", "web.b"))) as it:
        await eventually(lambda: "default/web.a" in it.pods())
        assert it.pods() == {
            "default/a": "a", "default/b": "b", "default/b.a": "a", "default/web.a": "a", "default/web.b.a": "a",
        }  # fmt: skip


async def test_a_box_that_joins_has_its_name() -> None:
    registry = FakeRegistry(box("a"))
    async with _mirroring(registry, a=_listing(lambda: _pods("a", "late"))) as it:
        await eventually(lambda: it.pods() == {"default/a": "a", "default/late.a": "a"})
        registry.put(box("late"))
        await eventually(lambda: it.pods() == {"default/a": "a", "default/late": "late", "default/late.a": "a"})


@pytest.mark.parametrize("first", ["a", "b"])
async def test_boxes_with_a_pod_of_one_name_have_a_pod_each_whoever_lists_it_first(first: str) -> None:
    registry = FakeRegistry(box(first))
    listing = _listing(lambda: _pods("proxy", namespace="kube-system"))
    async with _mirroring(registry, a=listing, b=listing) as it:
        await eventually(lambda: it.pods() == {f"kube-system/proxy.{first}": first})
        registry.put(box("b" if first == "a" else "a"))
        await eventually(lambda: it.pods() == {"kube-system/proxy.a": "a", "kube-system/proxy.b": "b"})
        uids = {item["metadata"]["uid"] for item in it.store.items("pods")}
        assert len(uids) == 2
        assert list(it.mirror.boxes_with("kube-system", "proxy")) == ["a", "b"]
        registry.remove(first)
        other = "b" if first == "a" else "a"
        await eventually(lambda: it.pods() == {f"kube-system/proxy.{other}": other})


@pytest.mark.parametrize(
    "kubelet",
    [
        _listing(lambda: b"not json"),
        _listing(lambda: b"[" * 100_000),
        _listing(lambda: b'{"items": "\\ud800"}'),
        _listing(lambda: b"no", 500),
        _listing(lambda: b" " * (9 * 1024 * 1024)),
    ],
)
async def test_a_kubelet_that_answers_nonsense_changes_nothing(kubelet: Kubelet) -> None:
    registry = FakeRegistry(box("a"), box("b"))
    async with _mirroring(registry, a=kubelet, b=_listing(lambda: pod_list("b", "host"))) as it:
        await eventually(lambda: len(it.opener.opened) == 2)
        await eventually(lambda: not it.opener.pairs["a"].server.statistics().streams)
        await eventually(lambda: it.phase("b") == "Running")
        assert it.pods() == {"default/a": "a", "default/b": "b"}


async def test_pods_are_refreshed_while_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "REFRESH_S", 0.01)
    monkeypatch.setattr(mirror_module, "STALE_S", 0.0)
    offered = ["host"]
    registry = FakeRegistry(box("a"))
    async with _mirroring(registry, a=_listing(lambda: pod_list("a", *offered))) as it:
        await eventually(lambda: it.phase("a") == "Running")
        offered.append("nginx.service")
        asked = len(it.opener.opened)
        await asyncio.sleep(0.1)
        assert len(it.opener.opened) == asked, "nobody looks"
        it.mirror.note_interest()
        await eventually(lambda: it.containers("a") == 2)


@pytest.mark.parametrize("settled", [False, True])
async def test_pods_on_their_way_are_refreshed_sooner(monkeypatch: pytest.MonkeyPatch, settled: bool) -> None:
    monkeypatch.setattr(mirror_module, "UNSETTLED_S", 0.0)
    offered = ["host"]

    def listed() -> bytes:
        text = pod_list("a", *offered)
        return text if settled else text.replace(b"Running", b"Pending")

    registry = FakeRegistry(box("a"))
    async with _mirroring(registry, a=_listing(listed)) as it:
        await eventually(lambda: it.phase("a") == ("Running" if settled else "Pending") and it.containers("a") == 1)
        offered.append("nginx.service")
        it.mirror.note_interest()
        if settled:
            await asyncio.sleep(0.1)
            assert len(it.opener.opened) == 1
        else:
            await eventually(lambda: it.containers("a") == 2)


async def test_one_pod_is_asked_for_again_when_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "FRESH_S", 0.0)
    offered = ["host"]
    registry = FakeRegistry(box("a"))
    async with _mirroring(registry, a=_listing(lambda: pod_list("a", *offered))) as it:
        await eventually(lambda: it.phase("a") == "Running")
        offered.append("nginx.service")
        await it.mirror.freshen("default", "a")
        assert it.containers("a") == 2


async def test_one_box_that_connects_again_and_again_is_asked_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "LEAST_PAUSE_S", 60.0)
    registry = FakeRegistry(box("a"), box("b"))
    async with _mirroring(registry, a=_listing(lambda: _pods("a"))) as it:
        await eventually(lambda: it.containers("a") == 1)
        asked = len(it.opener.opened)
        for number in range(50):
            registry.change("a", since=START.replace(minute=number))
        registry.change("b", version="2")
        await eventually(lambda: _version(it, "b") == "2")
        assert len(it.opener.opened) == asked
        await it.mirror.freshen("default", "a")  # nor does whoever looks have to wait for it


async def test_after_a_long_list_a_box_is_left_alone_for_longer() -> None:
    registry = FakeRegistry(box("a"))
    many = _pods(*(f"p{number}" for number in range(500)))
    async with _mirroring(registry, a=_listing(lambda: many)) as it:
        it.mirror.limits = PodLimits(read_bytes_per_s=len(many) // 30)
        await eventually(lambda: len(it.pods()) == 500)
        known = it.mirror._known["a"]
        await eventually(lambda: known.fetching is None)
        assert known.next_fetch_s - known.fetched_at_s == pytest.approx(30, rel=0.1)


async def test_a_box_with_many_pods_does_not_hold_up_the_event_loop() -> None:
    registry = FakeRegistry(box("a"))
    async with _mirroring(registry, a=_listing(lambda: _pods(*(f"p{number}" for number in range(512))))) as it:
        await eventually(lambda: len(it.pods()) == 512)
        await eventually(lambda: it.mirror._known["a"].fetching is None)
        # Two changes at once: each pod is what the last one says.
        registry.change("a", connected=False)
        registry.change("a", connected=True, since=START.replace(hour=5))
        registry.change("a", connected=False, since=START.replace(hour=6))
        seen = [0]
        while seen[-1] < 512:
            await asyncio.sleep(0)
            seen.append(sum(pod["status"].get("reason") == "AgentAway" for pod in it.store.items("pods")))
        assert max(after - before for before, after in pairwise(seen)) <= mirror_module.PODS_AT_A_TIME
        assert {pod["status"]["message"][-20:] for pod in it.store.items("pods")} == {"2026-01-02T06:04:05Z"}
        registry.remove("a")
        await eventually(lambda: it.pods() == {})
        assert it.mirror.held_bytes == 0


async def test_namespaces_come_with_their_first_pod_and_go_with_their_last() -> None:
    listed = [{"a": "shop"}, {"b": "shop"}]
    registry = FakeRegistry(box("x"), box("y"))

    def listing(index: int) -> Kubelet:
        def body() -> bytes:
            pods = [
                {"metadata": {"name": name, "namespace": namespace}, "spec": {}}
                for name, namespace in listed[index].items()
            ]
            return json.dumps({"items": pods}).encode()

        return _listing(body)

    def namespaces() -> set[str]:
        return {item["metadata"]["name"] for item in it.store.items("namespaces")} - set(NAMESPACES)

    async with _mirroring(registry, x=listing(0), y=listing(1)) as it:
        await eventually(lambda: it.pods() == {"shop/a.x": "x", "shop/b.y": "y"})
        assert namespaces() == {"shop"}
        assert set(it.mirror.boxes_in("shop")) == {"x", "y"}
        listed[0] = {"a": "other", "b": "shop"}
        registry.change("x", since=START.replace(hour=4))
        await eventually(lambda: namespaces() == {"shop", "other"})
        listed[0] = {}
        registry.change("x", since=START.replace(hour=5))
        await eventually(lambda: namespaces() == {"shop"})
        registry.remove("y")
        await eventually(lambda: namespaces() == set())
        assert set(it.mirror.boxes_in("shop")) == {"y"}, "watches of whoever saw it hear of its end"
        assert set(NAMESPACES) <= {item["metadata"]["name"] for item in it.store.items("namespaces")}


async def test_what_is_left_out_is_a_condition_of_the_node_while_it_is_so(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a", "../b"]
    registry = FakeRegistry(box("a"))

    def conditions() -> dict[str, str]:
        node = it.store.get("nodes", ("", "a"))
        return {one["type"]: one.get("reason", "") for one in node["status"]["conditions"]} if node else {}

    async with _mirroring(registry, a=_listing(lambda: _pods(*names))) as it:
        await eventually(lambda: conditions() == {"Ready": "AgentConnected", "PodsIncomplete": "Malformed"})
        assert it.pods() == {"default/a": "a"}
        registry.change("a", connected=False)
        await eventually(lambda: "PodsIncomplete" not in conditions())
        names.remove("../b")
        registry.change("a", connected=True, since=START.replace(hour=4))
        await eventually(lambda: conditions() == {"Ready": "AgentConnected"})
        await eventually(lambda: it.mirror._known["a"].fetching is None)
        assert conditions() == {"Ready": "AgentConnected"}
    assert capsys.readouterr().out.count("LL5023") == 1


def _version(it: Running, agent: str) -> str:
    node = it.store.get("nodes", ("", agent))
    return str(node["status"]["nodeInfo"]["kubeletVersion"]) if node else ""
