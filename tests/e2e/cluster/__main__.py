"""`python -m tests.e2e.cluster`: see `make cluster` and `make e2e`."""

from __future__ import annotations

import sys

from tests.e2e.cluster import build, requirements


def main(argv: list[str]) -> int:
    """Run one command; returns the exit code."""
    if argv != ["build"]:
        print("usage: python -m tests.e2e.cluster build", file=sys.stderr)
        return 2
    if reason := requirements.missing():
        print(f"==> no real Kubernetes here, and its tests are skipped: {reason}", file=sys.stderr)
        return 0
    try:
        build.programs()
    except build.BuildFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
