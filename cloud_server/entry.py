"""Where the process `cloud-server` begins."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from cloud_server.start import start
from tunnel.aio.process.outcome import EXIT_FAILED, exit_code, prepare, say, told
from tunnel.aio.process.plain_run import plain_run
from tunnel.core.wire.faults import PACKAGE_MISSING

SERVER_MODULES = ("cryptography", "h2", "jwt", "lightkube", "prometheus_client", "tomli", "yaml")
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
    config = plain_run(sys.argv[1:], "cloud-server")
    if config is None:
        from cloud_server.cli import main as command

        command()
    else:
        prepare()
        sys.exit(exit_code(lambda: start(config)))
