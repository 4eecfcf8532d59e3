"""Where the process `edge-agent` begins."""

from __future__ import annotations

from edge_agent.start import start
from tunnel.aio.process.plain_run import start_if_plain


def main() -> None:
    """Runs the command that this process's command line names, and exits with its code."""
    start_if_plain("edge-agent", start)
    from edge_agent.cli import main as command

    command()
