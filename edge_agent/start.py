"""Starts the agent in this process. The library of gRPC is told what to log before anything loads it."""

from __future__ import annotations

from pathlib import Path


def start(config: Path) -> int:
    """Runs the agent in the foreground until it is told to stop, and returns the exit code.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    from tunnel.aio.carriers.native_log import silence_core

    silence_core()  # before anything imports grpc
    from edge_agent.config import load_for_start
    from edge_agent.daemon import run

    path = config.absolute()
    return run(path, *load_for_start(path))
