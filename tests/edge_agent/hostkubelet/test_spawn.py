"""Starting processes where it is dangerous: in a process whose gRPC threads are busy."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.waits import scaled_s

BESIDE_GRPC = """
import asyncio, sys
import grpc, grpc.aio, uvloop
from edge_agent.hostkubelet.server import HostKubelet
from edge_agent.hostkubelet.settings import HostSettings
from tests.support.channel_client import ChannelClient, exec_target
from tests.support.duplex_pair import duplex_pair
from tests.support.principals import ANN
from tests.support.records import Records

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        async def echo(messages, context):
            async for message in messages:
                yield message
        return grpc.stream_stream_rpc_method_handler(echo)

async def traffic(call):
    while True:
        await call.write(bytes(65536))
        assert len(await call.read()) == 65536

async def run(kubelet, tty):
    client, server = duplex_pair()
    serving = asyncio.create_task(kubelet.serve(server, ANN))
    exec = await ChannelClient.open(client, exec_target("box", ["id", "-un"], tty=tty))
    code = await exec.finish()
    assert (code, exec.stdout.strip()) == (0, sys.argv[1].encode()), (code, exec.stdout, exec.stderr)
    await client.aclose()
    await serving

async def main():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    call = channel.stream_stream("/longline/echo")()
    busy = asyncio.create_task(traffic(call))
    kubelet = HostKubelet("box", HostSettings(exec=True, user=sys.argv[1]), Records())
    await kubelet.find_accounts()
    for number in range(30):
        await run(kubelet, tty=number % 3 == 0)
    await asyncio.gather(*(run(kubelet, tty=False) for _ in range(30)))
    assert not busy.done()
    busy.cancel()
    call.cancel()
    await kubelet.aclose()
    await channel.close()
    await server.stop(None)

uvloop.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("user", ["root", "nobody"])
async def test_commands_start_beside_busy_grpc_threads(user: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BESIDE_GRPC, user),
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(scaled_s(40)):
        _, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    assert b"fork" not in stderr, stderr.decode()


IGNORING = """
import signal, sys
from edge_agent.hostkubelet.spawn import CommandSpec, spawn, unblock_signals_of_commands

for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
unblock_signals_of_commands()
started = spawn(CommandSpec(argv=["sh", "-c", "echo ready; exec sleep 60"]))
with open(started.stdout, "rb", buffering=0) as stdout:
    assert stdout.read(6) == b"ready\\n"
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    signal.raise_signal(number)
started.process.send_signal(signal.Signals[sys.argv[1]])
print(-started.process.wait(20))
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
async def test_a_daemon_that_ignores_signals_starts_commands_that_do_not(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", IGNORING, number.name),
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(scaled_s(40)):
        stdout, stderr = await process.communicate()
    assert stdout.decode().split() == [str(int(number))], stderr.decode()
