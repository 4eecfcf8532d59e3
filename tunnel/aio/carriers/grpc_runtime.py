"""Keeps gRPC's own thread and queue for the life of the process.

grpc.aio counts its channels, calls and servers, and takes its machinery down when the last is gone: at some moment of
the garbage collector, with a join of its thread in the event loop, and up again at the next dial.
"""

from __future__ import annotations

import functools

import grpc.aio


@functools.cache
def keep_grpc_running() -> None:
    """Takes one count that is never given back. Call it in the event loop before anything of grpc.aio is made."""
    grpc.aio.init_grpc_aio()
