"""Where the process `edge-agent` begins."""

from __future__ import annotations

import sys

from edge_agent.start import start
from tunnel.aio.process.outcome import exit_code, prepare
from tunnel.aio.process.plain_run import plain_run


def main() -> None:
    """Runs the command that this process's command line names, and exits with its code."""
    config = plain_run(sys.argv[1:], "edge-agent")
    if config is None:
        from edge_agent.cli import main as command

        command()
    else:
        prepare()
        sys.exit(exit_code(lambda: start(config)))
