"""Where the process `cloud-server` begins."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from cloud_server.start import start
from tunnel.aio.process.outcome import EXIT_FAILED, say, told
from tunnel.aio.process.plain_run import start_if_plain
from tunnel.core.wire.faults import PACKAGE_MISSING

SERVER_MODULES = ("cryptography", "jwt", "lightkube", "prometheus_client", "tomli", "yaml")
"""The modules of the extra `server`, which a plain installation, as boxes have it, lacks."""
INSTALL = "pip install 'longline[server]'"


def main() -> None:
    """Runs the command that this process's command line names, and exits with its code. Says what to install when a
    module of the extra `server` is missing.
    """
    missing = [name for name in SERVER_MODULES if find_spec(name) is None]
    if missing:
        say(told(f"cloud-server needs more than is installed ({', '.join(missing)}): {INSTALL}", PACKAGE_MISSING))
        sys.exit(EXIT_FAILED)
    start_if_plain("cloud-server", start)
    from cloud_server.cli import main as command

    command()
