"""What a person waits for: a command on a box beside the same by ssh, an agent that starts."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping

from benches.results import Samples
from benches.rig import Rig, rig
from benches.ssh import ssh_command
from benches.tables import OURS
from tests.support.kubectl import kubectl_env
from tests.support.kubectl_choice import find_kubectl

NAME = "commands"


def measure(quick: bool) -> Samples:
    """Round by round."""
    samples: Samples = defaultdict(list)
    with rig(commands=True) as made, ssh_command() as ssh:
        kubectl, environment = str(find_kubectl()), kubectl_env(made.cluster.kubeconfig())
        for _ in range(3 if quick else 15):
            kubectl_s = _run([kubectl, "exec", made.box.name, "--", "true"], environment)
            samples[f"the command `true`, s | {OURS}"].append(kubectl_s)
            if ssh is not None:
                samples["the command `true`, s | ssh"].append(_run([*ssh, "true"]))
            samples["kubectl alone (version --client), s"].append(_run([kubectl, "version", "--client"], environment))
        for _ in range(3 if quick else 15):
            samples["edge-agent run to connected, s"].append(_start_up(made))
    return dict(samples)


def _run(words: list[str], environment: Mapping[str, str] | None = None) -> float:
    start = time.perf_counter()
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return time.perf_counter() - start


def _start_up(made: Rig) -> float:
    made.box.agent.kill()
    start = time.perf_counter()
    made.box.agent.start().wait_ready()
    return time.perf_counter() - start
