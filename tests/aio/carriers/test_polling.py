"""Who waits for gRPC's sockets; see `tunnel/aio/carriers/environment.py`."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = '''
import asyncio, os, sys
if sys.argv[1] == "ours":
    from tunnel.aio.carriers.native_log import silence_core
    silence_core()
import grpc, grpc.aio

ROUNDS = 400

def switches():
    """Of the event engine's threads."""
    total = 0
    for task in os.listdir("/proc/self/task"):
        if open(f"/proc/self/task/{task}/comm").read().startswith("event_engine"):
            status = open(f"/proc/self/task/{task}/status").read()
            total += int(status.partition("\\nvoluntary_ctxt_switches:")[2].split()[0])
    return total

async def echo(requests, context):
    async for request in requests:
        yield request

async def main():
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("test", {"Echo": grpc.stream_stream_rpc_method_handler(echo)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream("/test/Echo")()
        await call.write(b"first")
        await call.read()
        before = switches()
        for _ in range(ROUNDS):
            await call.write(b"x")
            await call.read()
        print((switches() - before) / ROUNDS)
        call.cancel()
    await server.stop(None)

asyncio.run(main())
'''


def switches_for_a_round_trip(how: str) -> tuple[float, str]:
    argv = [sys.executable, "-c", PROGRAM, how]
    clean = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    done = subprocess.run(argv, env=clean, capture_output=True, text=True, timeout=30, check=True)
    return float(done.stdout), done.stderr


def test_the_event_engine_has_no_part_in_a_round_trip() -> None:
    ours, said = switches_for_a_round_trip("ours")
    assert "Unknown experiment" not in said
    assert ours < 0.5
    assert switches_for_a_round_trip("default")[0] > 1, "it never has: the option can go"
