"""Runs a daemon with other limits than its own: `python -m benches.tuned max_packet_bytes=65536 COMMAND WORD...`.

The limits are fields of `Limits`, which no configuration sets: their defaults are what is measured elsewhere.
"""

from __future__ import annotations

import runpy
import sys

from tunnel.core.wire.limits import Limits


def main() -> None:
    """Change the default of one limit, and become the command."""
    name, _, value = sys.argv[1].partition("=")
    defaults = Limits.__init__.__kwdefaults__
    assert defaults is not None
    assert name in defaults, f"Limits has no {name}"
    defaults[name] = int(value)
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
