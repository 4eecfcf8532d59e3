"""Starts the server in this process. The library of gRPC is told what to log before anything loads it."""

from __future__ import annotations

from pathlib import Path


def start(config: Path) -> int:
    """Runs the server in the foreground until it is told to stop, and returns the exit code.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    from cloud_server.config import load_server_config
    from tunnel.aio.carriers.native_log import enable_handshake_trace

    enable_handshake_trace()  # before anything imports grpc
    from cloud_server.daemon import run

    return run(config, load_server_config(config))
