"""The calls that Headlamp makes with a user's token: lists, live views, rights, metrics, logs, a shell.

Headlamp itself does not run here. Paths, queries and WebSocket protocols are written down from its front end's source
(`useKubeObjectList.ts`, `webSocket.ts`, `streamingApi.ts`, `Terminal.tsx` of 2026): its back end passes them on.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import websocket
import yaml

from tests.compat.fleets import RealFleet
from tests.support.kubeconfig_files import client_context
from tests.support.tunnel import wait_until
from tests.support.waits import Deadline, scaled_s

pytestmark = pytest.mark.e2e
LISTS = (
    "/api/v1/nodes", "/api/v1/pods", "/api/v1/events?limit=2000", "/api/v1/namespaces", "/api/v1/services",
    "/apis/apps/v1/deployments", "/apis/apps/v1/replicasets", "/apis/apps/v1/daemonsets",
    "/apis/apps/v1/statefulsets", "/apis/batch/v1/jobs", "/apis/batch/v1/cronjobs",
)  # fmt: skip
LIVE = "base64.binary.k8s.io"
TERMINAL = (LIVE, "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
"""The first of them is of no terminal, and offered all the same."""
ITS_USER = "base64url.headlamp.authorization.k8s.io.dXNlcg"
"""For its back end; whoever does not know it leaves it alone."""
STDOUT, RESIZE = b"\x01", 4


class Tab:
    """A browser tab: it has a token, no certificate, and an origin of its own."""

    def __init__(self, boxes: RealFleet, folder: Path) -> None:
        self.token = boxes.cluster.user_token("headlamp")
        self.tls: ssl.SSLContext = client_context(yaml.safe_load(boxes.kubeconfig.read_text()), certificate=False)
        self.netloc = f"127.0.0.1:{boxes.cluster.fleet_port}"
        self.folder = folder

    def fetch(self, path: str, body: Any = None) -> tuple[int, Any]:
        """A `fetch` of JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json", "origin": "app://x"}
        request = urllib.request.Request(f"https://{self.netloc}{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=scaled_s(20)) as answer:
                text = answer.read().decode()
                return answer.status, json.loads(text) if "json" in answer.headers["content-type"] else text
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.loads(refused.read())

    def socket(self, path: str, *protocols: str) -> websocket.WebSocket:
        """A `new WebSocket`."""
        marked = base64.urlsafe_b64encode(self.token.encode()).decode().rstrip("=")
        return websocket.create_connection(
            f"wss://{self.netloc}{path}", sslopt={"context": self.tls}, origin="app://headlamp",
            subprotocols=[*protocols, ITS_USER, f"base64url.bearer.authorization.k8s.io.{marked}"],
            timeout=scaled_s(20),
        )  # fmt: skip


@pytest.fixture(scope="module")
def tab(boxes: RealFleet, tmp_path_factory: pytest.TempPathFactory) -> Tab:
    made = Tab(boxes, tmp_path_factory.mktemp("tab"))
    wait_until(lambda: made.fetch("/version")[0] == 200, "the server knows the new token", 20)
    return made


def test_who_am_i_and_what_may_i(tab: Tab) -> None:
    code, version = tab.fetch("/version")
    assert (code, version["major"]) == (200, "1")
    rules = {
        "kind": "SelfSubjectRulesReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": {"namespace": "default"},
    }
    code, review = tab.fetch("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules)
    assert (code, review["status"]["incomplete"]) == (201, False)
    for verb, resource, allowed in (("list", "pods", True), ("delete", "pods", False), ("update", "nodes", False)):
        asked = {"verb": verb, "resource": resource, "group": "", "namespace": "default"}
        spec = {"spec": {"resourceAttributes": asked}}
        body = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", **spec}
        code, review = tab.fetch("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
        assert (code, review["status"]["allowed"]) == (201, allowed)
    for path in ("/api", "/apis", "/api/v1", "/apis/apps/v1"):
        assert tab.fetch(path)[0] == 200


@pytest.mark.parametrize("path", LISTS)
def test_a_list_and_its_live_view(tab: Tab, path: str) -> None:
    code, listed = tab.fetch(path)
    assert code == 200, listed
    assert listed["kind"].endswith("List")
    mark = "&" if "?" in path else "?"
    version = listed["metadata"]["resourceVersion"]
    live = tab.socket(f"{path}{mark}watch=1&resourceVersion={version}", LIVE)
    assert live.getsubprotocol() == LIVE
    live.close()


def test_the_live_view_of_a_box_that_comes_and_goes(tab: Tab, boxes: RealFleet) -> None:
    _, listed = tab.fetch("/api/v1/nodes")
    live = tab.socket(f"/api/v1/nodes?watch=1&resourceVersion={listed['metadata']['resourceVersion']}", LIVE)
    boxes.cluster.start_box("box-8")

    def ready() -> str:
        event = json.loads(live.recv())
        conditions = {item["type"]: item["status"] for item in event["object"]["status"]["conditions"]}
        return f"{event['type']} {conditions['Ready']}"

    try:
        assert ready() == "MODIFIED True"
        boxes.cluster.boxes["box-8"].agent.stop()
        assert ready() == "MODIFIED Unknown"
    finally:
        boxes.cluster.boxes["box-8"].agent.close()
        live.close()


def test_metrics_and_one_pod(tab: Tab) -> None:
    code, nodes = tab.fetch("/apis/metrics.k8s.io/v1beta1/nodes")
    assert (code, [item["metadata"]["name"] for item in nodes["items"]]) == (200, ["box-7"])
    code, pods = tab.fetch("/apis/metrics.k8s.io/v1beta1/pods")
    assert (code, pods["kind"]) == (200, "PodMetricsList")
    code, pod = tab.fetch("/api/v1/namespaces/default/pods/box-7")
    assert (code, pod["spec"]["securityContext"]) == (200, {})
    code, log = tab.fetch("/api/v1/namespaces/default/pods/box-7/log?container=app.log&tailLines=2&previous=false")
    assert (code, log) == (200, "line 18\nline 19\n")


def test_the_terminal(tab: Tab) -> None:
    query = "container=host&command=sh&stdin=1&stderr=1&stdout=1&tty=1"
    shell = tab.socket(f"/api/v1/namespaces/default/pods/box-7/exec?{query}", *TERMINAL)
    assert shell.getsubprotocol() == TERMINAL[1]
    shell.send_binary(bytes([RESIZE]) + json.dumps({"Width": 91, "Height": 17}).encode())
    shell.send_binary(b"\0stty size; echo seen-$((6 * 7))\n")
    shown, deadline = b"", Deadline(20)
    while b"seen-42" not in shown:
        assert not deadline.passed(), shown
        message = shell.recv()
        assert isinstance(message, bytes)
        shown += message[1:] if message[:1] == STDOUT else b""
    assert b"17 91" in shown
    shell.send_binary(b"\0exit\n")
    shell.close()
