"""What an agent with `[autonomy]` costs on a node of some size, in front of a real kube-apiserver.

`python -m tests.e2e.cluster.node_footprint [SECONDS]`, as root, makes a thousand objects, reads them as kubelet,
kube-proxy and CoreDNS do, with some sixty watches, and measures the agent: its memory, its share of a core and its
writes to the disk, at rest and while EndpointSlices change. docs/autonomy.md has the figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import yaml

from tests.e2e.cluster import build
from tests.e2e.cluster.autonomous import READER
from tests.e2e.cluster.control_plane import ControlPlane, control_plane
from tests.e2e.cluster.pki import ClusterPki
from tests.e2e.cluster.workplace import workplace
from tests.support.agent_status import status_of
from tests.support.cluster import Box, cluster
from tests.support.kubeconfig_files import client_context
from tests.support.ports import free_ports
from tests.support.tunnel import BOX, wait_until
from tunnel.aio.http.http2_client import Http2Answer, Http2Client
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tls_client import dial_tls
from tunnel.kubeapi.codecs import CODECS

NODE = "node-1"
SERVICES, PODS, NAMED = 350, 60, 50
"""Services have a slice each; of the pods each names a Secret or a ConfigMap, fifty in all."""
ENDPOINTS = 40
REST_S = 60.0
BURST_S = 20.0
BURST_BYTES_PER_S = 350_000
PROTOBUF = "application/vnd.kubernetes.protobuf,application/json"
PLAIN = "labelSelector=!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
Json = dict[str, Any]


def service(number: int) -> Json:
    spec = {"selector": {"app": f"app-{number}"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"app-{number}"}, "spec": spec}


def slice_of(number: int, turn: int = 0) -> Json:
    labels = {"kubernetes.io/service-name": f"app-{number}", "app": f"app-{number}"}
    endpoints = [
        {
            "addresses": [f"10.{88 + turn % 100}.{number % 250}.{one + 1}"], "nodeName": f"node-{one}",
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": f"app-{number}-{one}",
                          "uid": f"00000000-0000-0000-{number:04x}-{one:012x}"},
        }
        for one in range(ENDPOINTS)
    ]  # fmt: skip
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": f"app-{number}-abcde", "labels": labels}, "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }  # fmt: skip


def pod(number: int) -> Json:
    source = {"secretRef" if number % 2 else "configMapRef": {"name": f"settings-{number % NAMED}"}}
    env = [{"name": f"SETTING_{one}", "value": f"value of setting {one}"} for one in range(16)]
    containers = [{"name": "web", "image": "registry.example.com/web:1.2.3", "env": env, "envFrom": [source]}]
    spec = {"nodeName": NODE, "containers": containers, "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"web-{number}"}, "spec": spec}


def named(number: int) -> Json:
    metadata = {"name": f"settings-{number}"}
    kind = "Secret" if number % 2 else "ConfigMap"
    content = {"stringData" if number % 2 else "data": {f"key-{one}": "value " * 10 for one in range(16)}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **content}


def objects() -> list[Json]:
    """Some thousand, with what is there anyhow."""
    made: list[Json] = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}]
    made += [named(number) for number in range(NAMED)]
    made += [pod(number) for number in range(PODS)]
    made += [service(number) for number in range(SERVICES)]
    made += [slice_of(number) for number in range(SERVICES)]
    made += [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{number}"}} for number in range(150)]
    return made


# Who asks

KUBELET = [
    f"/api/v1/nodes?fieldSelector=metadata.name%3D{NODE}", "/api/v1/services?fieldSelector=spec.clusterIP!%3DNone",
    f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}", "/apis/storage.k8s.io/v1/csidrivers?",
    "/apis/node.k8s.io/v1/runtimeclasses?",
    *(f"/api/v1/namespaces/default/{'secrets' if number % 2 else 'configmaps'}?"
      f"fieldSelector=metadata.name%3Dsettings-{number}" for number in range(NAMED)),
]  # fmt: skip
KUBE_PROXY = [
    f"/api/v1/nodes?fieldSelector=metadata.name%3D{NODE}", f"/apis/discovery.k8s.io/v1/endpointslices?{PLAIN}",
    f"/api/v1/services?{PLAIN}&fieldSelector=spec.clusterIP!%3DNone",
    f"/apis/networking.k8s.io/v1/servicecidrs?{PLAIN}",
]  # fmt: skip
COREDNS = ["/api/v1/services?", "/apis/discovery.k8s.io/v1/endpointslices?", "/api/v1/namespaces?"]


class Client:
    """One component: it lists, and watches from there, over one HTTP/2 connection as client-go does."""

    def __init__(self, http: Http2Client, authority: str, token: str, targets: list[str]) -> None:
        self.http = http
        self.targets = targets
        self.event_bytes = 0
        self._authority = authority
        self._headers = [("accept", PROTOBUF), *([("authorization", f"Bearer {token}")] if token else [])]

    async def run(self, ready: Callable[[], None]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.http.run())
            for target in self.targets:
                tasks.create_task(self._follow(target, ready))

    async def _follow(self, target: str, ready: Callable[[], None]) -> None:
        listed = await self._asked(f"{target}&resourceVersion=0")
        media_type = (await listed.response()).headers.get("content-type")
        body = b""
        while chunk := await listed.read_chunk():
            body += chunk
        codec = next(one for one in CODECS.values() if one.media_type == media_type)
        options = "watch=true&allowWatchBookmarks=true&timeoutSeconds=3000"
        watched = await self._asked(f"{target}&{options}&resourceVersion={codec.read_list(body).version}")
        ready()
        while chunk := await watched.read_chunk():
            self.event_bytes += len(chunk)

    async def _asked(self, target: str) -> Http2Answer:
        answer = self.http.get(self._authority, target, self._headers)
        head = await answer.response()
        assert head.status == 200, head
        return answer


# The agent


class Meter:
    """What the agent has used since the last reading."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self._process = psutil.Process(box.agent.pid)
        self._before = self._now()

    def _now(self) -> tuple[float, float, int, int]:
        cpu = self._process.cpu_times()
        _, status = status_of(self.box)
        written = self._process.io_counters().write_bytes
        return time.monotonic(), cpu.user + cpu.system, written, status["autonomy"]["commits"]

    def connections(self, port: int) -> int:
        """How many connections the agent has to a port."""
        return sum(bool(one.raddr) and one.raddr.port == port for one in self._process.net_connections())

    def say(self, what: str) -> None:
        before, now = self._before, self._now()
        self._before = now
        seconds, cpu, written, commits = (late - early for late, early in zip(now, before, strict=True))
        rss = self._process.memory_info().rss / 1e6
        print(
            f"{what}: {rss:.1f} MB, {100 * cpu / seconds:.2f} % of a core, {commits} commits and {written} bytes"
            f" written in {seconds:.0f} s",
            flush=True,
        )


async def _burst(admin: httpx2.AsyncClient, clients: list[Client]) -> None:
    """Changes slices, so that some 350 kB of events come to the agent each second."""
    size = len(json.dumps(slice_of(0)))  # an event of it in protobuf takes half of that
    each_s = size / 2 / BURST_BYTES_PER_S
    start_s, turn, sent = time.monotonic(), 1, 0
    before = sum(client.event_bytes for client in clients)
    headers = {"content-type": "application/merge-patch+json"}
    while time.monotonic() - start_s < BURST_S:
        number = sent % SERVICES
        turn += number == 0
        path = f"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/app-{number}-abcde"
        change = {"endpoints": slice_of(number, turn)["endpoints"]}
        (await admin.patch(path, content=json.dumps(change), headers=headers)).raise_for_status()
        sent += 1
        if (ahead_s := start_s + sent * each_s - time.monotonic()) > 0:
            await asyncio.sleep(ahead_s)
    took_s = time.monotonic() - start_s
    told = sum(client.event_bytes for client in clients) - before
    print(f"burst: {sent / took_s:.0f} changes/s, {told / took_s / 1000:.0f} kB/s of events to two watches", flush=True)


async def _measure(control: ControlPlane, box: Box, port: int, certificate: tuple[Path, Path], tokens: Json) -> None:
    context = client_context(yaml.safe_load(control.api.kubeconfig.read_text()))
    meter = Meter(box)
    meter.say("before anybody has asked")
    clients = []
    for targets, files, token in (
        (KUBELET, certificate, ""), (KUBE_PROXY, None, tokens["kube-proxy"]), (COREDNS, None, tokens["coredns"])
    ):  # fmt: skip
        http = Http2Client(await _dial(port, box.state / "api-proxy.crt", files))
        clients.append(Client(http, f"127.0.0.1:{port}", token, targets))
    waiting = sum(len(client.targets) for client in clients)
    all_ready = asyncio.Event()

    def ready() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            all_ready.set()

    print(f"{sum(len(client.targets) for client in clients)} watches", flush=True)
    async with httpx2.AsyncClient(base_url=control.api.server, verify=context, timeout=60) as admin:
        running = TaskOwner("clients")
        for client in clients:
            running.spawn("client", client.run(ready))
        async with asyncio.timeout(120):
            await all_ready.wait()
        await asyncio.sleep(5)
        meter.say("start")
        await asyncio.sleep(35)
        meter.say("after its first sweep")
        _, status = await asyncio.to_thread(status_of, box)
        kept = status["autonomy"]
        print(f"{sum(one['objects'] for one in kept['scopes'])} objects in {len(kept['scopes'])} lists,"
              f" {kept['bytes']} bytes")  # fmt: skip
        print(f"{meter.connections(int(control.api.server.rpartition(':')[2]))} connections to the API server")
        await asyncio.sleep(REST_S)
        meter.say("rest")
        await _burst(admin, clients)
        meter.say("burst")
        await asyncio.sleep(10)
        meter.say("after it")
        await running.aclose()


async def _dial(port: int, ca: Path, certificate: tuple[Path, Path] | None) -> Conn:
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return await dial_tls("127.0.0.1", port, context, handshake_timeout_s=10)


@contextmanager
def _control(folder: Path, pki: ClusterPki) -> Iterator[ControlPlane]:
    with control_plane(folder / "cloud", build.programs(), pki, address="127.0.0.1", nodes=[NODE]) as made:
        made.start()
        made.api.wait_ready()
        yield made


def main() -> None:
    """Measure, and print."""
    with workplace([]) as folder:
        pki = ClusterPki(folder / "pki")
        certificate = pki.issue("kubelet", f"system:node:{NODE}", group="system:nodes")
        with _control(folder, pki) as control, cluster() as made:
            made.start()
            api = control.api
            api.kubectl("create", "serviceaccount", "default")
            api.apply(*objects())
            api.kubectl("apply", "-f", str(READER))
            tokens = {}
            for name, role in (("kube-proxy", "system:node-proxier"), ("coredns", "cluster-admin")):
                api.kubectl("create", "serviceaccount", name)
                api.kubectl(
                    "create", "clusterrolebinding", name, f"--clusterrole={role}", f"--serviceaccount=default:{name}"
                )
                tokens[name] = api.kubectl("create", "token", name).strip()
            box = made.join(BOX)
            shared = box.state / "reader.token"
            shared.write_text(api.kubectl("create", "token", "node-reader", "-n", "longline"))
            (port,) = free_ports(1)
            box.configure({
                "autonomy": {
                    "listen": f"127.0.0.1:{port}", "server": api.server.removeprefix("https://"), "ca": str(pki.ca),
                    "client_cert": str(certificate[0]), "client_key": str(certificate[1]), "shared_token": str(shared),
                }
            })  # fmt: skip
            made.start_box(BOX)
            wait_until((box.state / "api-proxy.crt").exists, "the proxy has a certificate")
            box.agent.kill()  # what makes a certificate stays in memory, and a node makes it once
            made.start_box(BOX)
            asyncio.run(_measure(control, box, port, certificate, tokens))


if __name__ == "__main__":
    # Not the machine's own proxies, whatever they are for.
    for word in [word for word in os.environ if word.lower().endswith("_proxy")]:
        del os.environ[word]
    if sys.argv[1:]:
        REST_S = float(sys.argv[1])
    main()
