"""Records what a real kube-apiserver answers, from the cluster of `make e2e`: `python -m tests.compat.record`.

Only shapes of objects and the codes and fields of refusals are kept, in `recorded/`; tests compare the fleet API with
them.
"""

from __future__ import annotations

import http.client
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.compat.api_requests import OBJECTS, REFUSALS, Ask
from tests.compat.shapes import common, shape
from tests.e2e.cluster import build
from tests.e2e.cluster.tunnelled import Tunnelled, tunnelled
from tests.support.kubeconfig_files import client_context

FOLDER = Path(__file__).parent / "recorded"
DEFAULTED = (
    "restartPolicy", "dnsPolicy", "terminationGracePeriodSeconds", "schedulerName", "securityContext",
    "enableServiceLinks", "terminationMessagePath", "terminationMessagePolicy", "resources", "preemptionPolicy",
    "priority", "qosClass",
)  # fmt: skip
"""Fields of a pod that an API server fills in, whose values are kept."""


def main() -> int:
    """Record all; returns the exit code."""
    FOLDER.mkdir(exist_ok=True)
    with tunnelled(("site-a", "site-b")) as made:
        # What a pod has that says nothing of itself: only what is filled in.
        made.kubectl("run", "plain", "--image=nowhere.invalid/plain", "--restart=Always")
        _write("objects.json", _objects(made))
        _write("defaults.json", _defaults(json.loads(made.kubectl("get", "pod", "plain", "-o", "json"))))
        _write("refusals.json", _refusals(made))
    return 0


# Internal


def _objects(made: Tunnelled) -> dict[str, Any]:
    shapes = {}
    for name, ask in OBJECTS.items():
        answers = [_ask(made, ask, site) for site in ("site-a", "site-b")]
        assert all(code < 300 for code, _ in answers), (name, answers)
        shapes[name] = common([shape(body) for _, body in answers])
    return shapes


def _refusals(made: Tunnelled) -> dict[str, Any]:
    kept = {}
    for name, ask in REFUSALS.items():
        code, body = _ask(made, ask, "site-a")
        # A path that is not there is answered by Go's own server, which knows no Status.
        reason = body.get("reason") if isinstance(body, dict) else None
        kept[name] = {"code": code, "reason": reason, "shape": shape(body), "message": _message(body)}
    return kept


def _message(body: object) -> str:
    return str(body.get("message", "")) if isinstance(body, dict) else str(body)


def _defaults(pod: dict[str, Any]) -> dict[str, Any]:
    def of(part: dict[str, Any]) -> dict[str, Any]:
        return {name: part[name] for name in DEFAULTED if name in part}

    return {"spec": of(pod["spec"]), "container": of(pod["spec"]["containers"][0]), "status": of(pod["status"])}


def _ask(made: Tunnelled, ask: Ask, site: str) -> tuple[int, Any]:
    config = yaml.safe_load(made.kubeconfig.read_text())
    address = urlsplit(config["clusters"][0]["cluster"]["server"])
    context = client_context(config, certificate=not ask.stranger)
    connection = http.client.HTTPSConnection(address.netloc, context=context, timeout=30)
    path = ask.path.format(node=site, pod=f"app-{site}")
    connection.request(ask.method, path, body=ask.body or None, headers=ask.headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    try:
        return answer.status, json.loads(data)
    except ValueError:
        return answer.status, data.decode()


def _write(name: str, content: dict[str, Any]) -> None:
    recorded = {"recorded from": f"kube-apiserver {build.kubernetes_version()}", **content}
    (FOLDER / name).write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
