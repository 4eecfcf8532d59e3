"""`python -m tests.e2e.cluster build|up|upstream`: see `make e2e`, `make cluster`, and `conformance.py`."""

from __future__ import annotations

import signal
import sys

from tests.e2e.cluster import build, conformance, requirements
from tests.e2e.cluster.autonomous import lead
from tests.e2e.cluster.tunnelled import LISTEN, Tunnelled, tunnelled
from tests.support.processes import BIN

USAGE = "usage: python -m tests.e2e.cluster build|up|upstream"


def main(argv: list[str]) -> int:
    """Run one command; returns the exit code."""
    if argv not in (["build"], ["up"], ["upstream"]):
        print(USAGE, file=sys.stderr)
        return 2
    reason = requirements.missing()
    try:
        if argv == ["up"]:
            return _fail(reason) if reason else _up()
        if argv == ["upstream"]:
            return _fail(reason) if reason else conformance.run()
        if reason:
            print(f"==> no real Kubernetes here, and its tests are skipped: {reason}", file=sys.stderr)
        else:
            build.programs()
            build.backend()
            build.coredns()
            build.informers()
            build.stern()
            build.k9s()
    except build.BuildFailed as failed:
        return _fail(str(failed))
    return 0


def _up() -> int:
    """Run a cluster until somebody has had enough of it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        build.programs()
        _say("starting a control plane and two nodes behind NAT (about 15 s)")
        with tunnelled() as made:
            for name, node in made.kubernetes.nodes.items():
                lead(made.kubernetes, node, made.cluster.boxes[name], LISTEN)
            _tell(made)
            signal.pause()
    except KeyboardInterrupt:
        _say("ended, and everything removed")
    return 0


def _tell(made: Tunnelled) -> None:
    enter = " ".join(made.kubernetes.nodes["site-a"].namespaces.enter)
    print(
        f"""
Kubernetes {build.kubernetes_version()} runs. Its nodes have the same address, and the tunnel is the only way to them.
Their kubelets ask their agents, which keep what they need for when the cloud is away. In another terminal:

  export KUBECONFIG={made.kubeconfig}
  kubectl get nodes -o wide
  kubectl get pods -o wide
  kubectl exec -it app-site-a -c shell -- sh
  kubectl logs -f app-site-b -c counter
  kubectl port-forward app-site-a 8080

  on a node:          {enter} sh
  the cloud server:   {made.cluster.config}
  an agent:           {made.cluster.boxes["site-a"].config}
  what it keeps:      {BIN / "edge-agent"} autonomy status --config {made.cluster.boxes["site-a"].config}
  logs:               {made.cluster.folder}/*.log {made.kubernetes.control.folder.parent}/*/*.log

Ctrl-C ends it all.""",
        flush=True,
    )


def _fail(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 1


def _say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
