"""The main job, on real processes: a stock kubectl, and curl, on a box that nothing can reach.

Run it as `make demo`. As root the box has a network namespace of its own, whose firewall drops whatever comes in;
without root it is a plain process, and the demo says so.
"""

from __future__ import annotations

import os
import signal
import sys

from tests.demo.scenes import Demo
from tests.demo.stage import Stage, StepFailed
from tests.support.kubectl_choice import NoKubectl, find_kubectl
from tests.support.netns import NamespaceFailed, box_namespace, missing_for_namespaces
from tests.support.processes import BIN, ProcessFailed


def _terminated(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo; returns the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    why_not = missing_for_namespaces()
    print("Longline: kubectl, and any TCP service, on a box that nothing can reach.", flush=True)
    with Stage() as stage:
        try:
            kubectl = find_kubectl()
            stage.env["PATH"] = f"{kubectl.parent}:{BIN}:{os.environ.get('PATH', '')}"
            stage.env["HOME"] = str(stage.folder)
            # The namespace is entered first, so that it is removed last.
            Demo(stage, None if why_not else stage.enter(box_namespace())).run()
        except (StepFailed, ProcessFailed, NamespaceFailed, NoKubectl) as failed:
            print(f"\nThe demo failed: {failed}\n{stage.tails()}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("\nStopped; everything is cleaned up.", file=sys.stderr)
            return 130
        print(f"\nAll of it took {stage.elapsed_s:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
