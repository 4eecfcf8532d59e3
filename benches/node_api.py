"""What a node's API proxy carries between the agent and the API server, beside the same clients without it.

`python -m benches.node_api [--quick] [--set NAME=VALUE] [--token-setting NAME]`; root, and Kubernetes built once.

Three processes of client-go ask what a kubelet, a kube-proxy and CoreDNS ask, at the proxy and at the API server, all
at the same time; each way goes over a relay that counts. Bytes are those that TCP carries, up and down: TLS with its
handshakes, and HTTP. There are 1,000 Services, each with a slice of four endpoints.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benches.machine import machine, moment
from benches.results import Result, Samples
from benches.tables import OURS, show
from tests.e2e.cluster.api_writer import ApiWriter, api_writer
from tests.e2e.cluster.control_plane import ControlPlane
from tests.e2e.cluster.informing import Followed, Informers, Store, informing
from tests.e2e.cluster.proxied import NODE, ProxiedApi, proxied_api
from tests.support.relay_process import RelayProcess
from tests.support.tunnel import wait_until

NAME = "a node's API proxy"
DIRECT = "direct"
SETTLED_S = 5.0
"""For how long nothing must flow, beside probes, for a phase to be over."""
QUIET_BYTES = 4096
"""What may flow in that time all the same."""
LONGEST_S = 150.0
"""A client waits for up to a minute before it tries again."""
SHARED_TOKEN = "shared.token"

_KUBE_PROXY = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
_DISCOVERY = "discovery.k8s.io"
KUBELET = [
    Followed(name="nodes", resource="nodes", fields=f"metadata.name={NODE}"),
    Followed(name="services", resource="services", fields="spec.clusterIP!=None"),
    Followed(name="pods", resource="pods", fields=f"spec.nodeName={NODE}"),
    Followed(name="csidrivers", group="storage.k8s.io", resource="csidrivers"),
    Followed(name="runtimeclasses", group="node.k8s.io", resource="runtimeclasses"),
]
PROXY = [
    Followed(name="nodes", resource="nodes", fields=f"metadata.name={NODE}"),
    Followed(name="services", resource="services", labels=_KUBE_PROXY, fields="spec.clusterIP!=None"),
    Followed(name="slices", group=_DISCOVERY, resource="endpointslices", labels=_KUBE_PROXY),
    Followed(name="cidrs", group="networking.k8s.io", resource="servicecidrs", labels=_KUBE_PROXY),
]
COREDNS = [
    Followed(name="services", resource="services"),
    Followed(name="slices", group=_DISCOVERY, resource="endpointslices"),
    Followed(name="namespaces", resource="namespaces"),
]
READER = {
    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "reader"},
    "rules": [
        {"apiGroups": [group], "resources": list(resources), "verbs": ["get", "list", "watch"]}
        for group, resources in (
            ("", ("services", "namespaces", "nodes")), (_DISCOVERY, ("endpointslices",)),
            ("networking.k8s.io", ("servicecidrs",)), ("node.k8s.io", ("runtimeclasses",)),
            ("storage.k8s.io", ("csidrivers",)),
        )
    ],
}  # fmt: skip
SERVICES = "/api/v1/namespaces/default/services"
SLICES = f"/apis/{_DISCOVERY}/v1/namespaces/default/endpointslices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    services: int
    rolled: int
    """How many slices are rolled."""
    idle_s: float
    cuts: tuple[tuple[float, int], ...]
    """Seconds of a cut, and how many of them."""


FULL = Size(services=1000, rolled=100, idle_s=180.0, cuts=((5.0, 4), (60.0, 2)))
QUICK = Size(services=50, rolled=10, idle_s=10.0, cuts=((5.0, 1),))


class Way:
    """One way to the API server: its relay, and the three clients."""

    def __init__(self, link: RelayProcess, kubeconfigs: list[Path], folder: Path) -> None:
        self.link = link
        self._kubeconfigs = kubeconfigs
        self._folder = folder
        self._turn = 0
        self.clients: list[Informers] = []

    def carried(self) -> int:
        """The bytes so far, both ways."""
        counters = self.link.counters()
        return counters["up_bytes"] + counters["down_bytes"]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The clients run, until all has come at least."""
        self._turn += 1
        with contextlib.ExitStack() as stack:
            self.clients = [
                stack.enter_context(informing(kubeconfig, followed, self._folder / f"{self._turn}-{number}.log"))
                for number, (kubeconfig, followed) in enumerate(
                    zip(self._kubeconfigs, (KUBELET, PROXY, COREDNS), strict=True)
                )
            ]
            yield

    def held(self) -> list[dict[str, Store]]:
        """What the clients hold; nothing where an informer was not filled yet."""
        return [{name: store or {} for name, store in client.stores().items()} for client in self.clients]

    def is_filled(self) -> bool:
        """Whether all informers were filled."""
        return all(store is not None for client in self.clients for store in client.stores().values())


@dataclass(kw_only=True)
class Bench:
    """What is measured, and on what."""

    place: ProxiedApi
    writer: ApiWriter
    ways: Mapping[str, Way]
    size: Size
    samples: Samples
    _turn: int = 0

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what a block and what comes of it carries, until both ways hold the same and are quiet."""
        self.writer.close()  # the API server has closed the connection if the phase before was long
        before = {subject: way.carried() for subject, way in self.ways.items()}
        yield
        self._settle()
        for subject, way in self.ways.items():
            self.samples[f"{name}, kB | {subject}"].append((way.carried() - before[subject]) / 1e3)

    def idle(self, seconds: float) -> None:
        """Count what flows while nothing happens."""
        before = {subject: way.carried() for subject, way in self.ways.items()}
        time.sleep(seconds)
        for subject, way in self.ways.items():
            self.samples[f"idle, kB in an hour | {subject}"].append((way.carried() - before[subject]) / seconds * 3.6)

    def start(self, name: str, clients: contextlib.ExitStack) -> None:
        """Start the clients of both ways, and count that; they end with the stack."""
        with self.phase(name):
            for way in self.ways.values():
                clients.enter_context(way.running())

    def change(self, number: int, turn: str) -> None:
        """Give a slice other endpoints."""
        self.writer.merge(f"{SLICES}/s-{number}", endpoints=_endpoints(number, turn))

    # Internal

    def _settle(self) -> None:
        """Wait until all is as it was: a change of each kind of object comes to everybody, and nothing else does. A
        client that waits before it asks again would seem to be quiet.
        """
        ours, direct = self.ways[OURS], self.ways[DIRECT]
        wait_until(lambda: ours.is_filled() and direct.is_filled(), "all informers are filled", LONGEST_S)
        self._turn += 1
        mark = {"annotations": {"turn": str(self._turn)}}
        for path in (SERVICES, SLICES):
            self.writer.merge(f"{path}/s-0", metadata=mark)
        wait_until(lambda: self._is_current() and self._is_quiet(), "all hold what is there", LONGEST_S)

    def _is_current(self) -> bool:
        """Whether all clients hold the Services and slices that are there, and the same of all else."""
        ours, direct = (way.held() for way in self.ways.values())
        for name, path in (("services", SERVICES), ("slices", SLICES)):
            items = self.writer.read(path)["items"]
            there = {f"default/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in items}
            for stores in ours:
                held = {key: version for key, (_, version) in stores.get(name, {}).items() if key in there}
                if name in stores and held != there:
                    return False
        return ours == direct

    def _is_quiet(self) -> bool:
        before = [way.carried() for way in self.ways.values()]
        time.sleep(SETTLED_S)
        return all(way.carried() - was < QUIET_BYTES for way, was in zip(self.ways.values(), before, strict=True))


def measure(size: Size, settings: Mapping[str, Any], token_setting: str = "") -> Samples:
    """One round of all phases, in the order of a node's life."""
    samples: Samples = defaultdict(list)
    with _bench(size, settings, token_setting, samples) as bench:
        with contextlib.ExitStack() as clients:
            bench.start("three components start, nothing kept", clients)
        with contextlib.ExitStack() as clients:
            bench.start("three components start again", clients)
            bench.idle(size.idle_s)
            for seconds, count in size.cuts:
                _cuts(bench, seconds, count)
            with bench.phase("the API server starts again"):
                bench.place.control.api.daemon.kill()
                bench.writer.close()
                bench.place.control.api.daemon.start()
                bench.place.control.api.wait_ready()
            with bench.phase(f"a roll of {size.rolled} slices"):
                for turn in ("10.7", "10.8"):  # each endpoint goes, and another one comes
                    for number in range(size.rolled):
                        bench.change(number, turn)
        bench.place.box.agent.kill()
        bench.place.box.agent.start().wait_ready()
        with contextlib.ExitStack() as clients:
            bench.start("the node starts again, with what is kept", clients)
    return samples


def _cuts(bench: Bench, seconds: float, count: int) -> None:
    """Cuts during which a tenth of what is rolled changes."""
    for turn in range(count):
        with bench.phase(f"a cut of {seconds:g} s"):
            for way in bench.ways.values():
                way.link.refuse()
                way.link.cut()
            end = time.monotonic() + seconds
            for number in range(bench.size.rolled // 10):
                bench.change(number, f"10.{turn + 1}")
            time.sleep(max(0.0, end - time.monotonic()))
            for way in bench.ways.values():
                way.link.heal()


@contextlib.contextmanager
def _bench(size: Size, settings: Mapping[str, Any], token_setting: str, samples: Samples) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="longline-bench-")))

        def more(control: ControlPlane) -> Mapping[str, Any]:
            control.api.apply(READER)
            if not token_setting:
                return settings
            path = folder / SHARED_TOKEN
            path.write_text(_account(control, "sharer", "reader"))
            path.chmod(0o600)
            return {**settings, token_setting: str(path)}

        place = stack.enter_context(proxied_api(folder, more))
        control = place.control
        writer = stack.enter_context(api_writer(control.api.kubeconfig))
        _fill(writer, size.services)
        certificate, key = place.pki.folder / "kubelet.crt", place.pki.folder / "kubelet.key"
        users: dict[str, Mapping[str, str]] = {
            "kubelet": {"client-certificate": str(certificate), "client-key": str(key)},
            "kube-proxy": {"token": _account(control, "kube-proxy", "system:node-proxier")},
            "coredns": {"token": _account(control, "coredns", "reader")},
        }
        ours = [place.user(name, credentials).kubeconfig for name, credentials in users.items()]
        api_port = int(control.api.server.rpartition(":")[2])
        link = stack.enter_context(RelayProcess(("127.0.0.1", api_port)))
        direct = [_led_to(path, f"https://{link.address}", place.pki.ca) for path in ours]
        ways = {}
        for subject, way_link, kubeconfigs in ((OURS, place.link, ours), (DIRECT, link, direct)):
            (folder / subject).mkdir()
            ways[subject] = Way(way_link, kubeconfigs, folder / subject)
        yield Bench(place=place, writer=writer, ways=ways, size=size, samples=samples)


def _account(control: ControlPlane, name: str, role: str) -> str:
    """Makes a ServiceAccount with a role everywhere; returns a token of it."""
    api = control.api
    api.kubectl("create", "serviceaccount", name)
    api.kubectl("create", "clusterrolebinding", name, f"--clusterrole={role}", f"--serviceaccount=default:{name}")
    return api.kubectl("create", "token", name, "--duration=12h").strip()


def _led_to(kubeconfig: Path, server: str, ca: Path) -> Path:
    """Makes a kubeconfig of the same user at another server."""
    content = yaml.safe_load(kubeconfig.read_text())
    content["clusters"][0]["cluster"] = {"server": server, "certificate-authority": str(ca)}
    path = kubeconfig.with_suffix(".direct")
    path.write_text(yaml.safe_dump(content))
    return path


def _fill(writer: ApiWriter, services: int) -> None:
    for number in range(services):
        name = f"s-{number}"
        writer.create(
            SERVICES,
            metadata={"name": name, "labels": {"app": name, "tier": "backend"}},
            spec={"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        )
        writer.create(
            SLICES,
            metadata={"name": name, "labels": {"kubernetes.io/service-name": name, "app": name}},
            addressType="IPv4", endpoints=_endpoints(number, "10.9"), ports=[{"name": "http", "port": 8080}],
        )  # fmt: skip


def _endpoints(number: int, net: str) -> list[dict[str, Any]]:
    return [
        {
            "addresses": [f"{net}.{number // 250}.{number % 250 + 1}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{place}",
            "targetRef": {
                "kind": "Pod", "namespace": "default", "name": f"s-{number}-7d4b9c6f5-{place:05}",
                "uid": f"6a1de9b0-0000-4000-8000-{number:06}{place:06}",
            },
        }
        for place in range(4)
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(prog="python -m benches.node_api", description=__doc__.partition("\n")[0])
    words.add_argument("--quick", action="store_true", help="few objects and short: to see that it runs")
    words.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of [autonomy], as in TOML")
    named = "a field of [autonomy] that names a file with the token of a reader, which is made"
    words.add_argument("--token-setting", default="", metavar="NAME", help=named)
    options = words.parse_args()
    before = moment()
    samples = measure(QUICK if options.quick else FULL, tomllib.loads("\n".join(options.set)), options.token_setting)
    show(Result(NAME, machine(), before, moment(), dict(samples)))


if __name__ == "__main__":
    main()
