"""Feeds rubbish to everything of ours that parses: `python -m tests.fuzz [--seconds N] [TARGET...]`.

The seconds are shared by the targets; `packets` is the one of tests/fuzz/decoder.py. What goes wrong is printed as a
reproducer, the exit code is then 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

import structlog

from tests.fuzz import answers, decoder, files, kube, servers
from tests.fuzz.engine import Found, Target, fuzz

PACKETS = "packets"
PACKETS_SHARE = 5
"""How many other targets the packets of the link are worth: whole sessions are lived through there."""


def targets() -> dict[str, Target]:
    """Returns all targets but the packets, by name."""
    return {
        target.name: target for target in (*servers.targets(), *files.targets(), *answers.targets(), *kube.targets())
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; 1 when something was found."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same inputs")
    parser.add_argument("target", nargs="*", choices=[PACKETS, *known, []], help="only these; all when none is given")
    arguments = parser.parse_args(argv)
    names = arguments.target or [PACKETS, *known]
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    share_s = arguments.seconds / sum(PACKETS_SHARE if name == PACKETS else 1 for name in names)
    structlog.configure(processors=[_dropped])
    found = 0
    for name in names:
        began_s = time.monotonic()
        try:
            done = decoder.run(share_s * PACKETS_SHARE, seed) if name == PACKETS else _run(known[name], share_s, seed)
        except (Found, decoder.Failure) as failure:
            print(f"seed {seed}: {failure}", file=sys.stderr)
            found += 1
            continue
        print(f"{name:16} {done} in {time.monotonic() - began_s:.1f} s", flush=True)
    print(f"seed {seed}: {f'{found} targets failed' if found else 'nothing found'}")
    return 1 if found else 0


def _run(target: Target, seconds: float, seed: int) -> str:
    done = fuzz(target, seconds, seed)
    return f"{done.executions} executions, {len(done.reached)} lines reached"


def _dropped(*_: object) -> dict[str, object]:
    raise structlog.DropEvent


if __name__ == "__main__":
    sys.exit(main())
