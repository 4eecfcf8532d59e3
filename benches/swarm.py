"""Thousands of agents: real links of the daemon's own code with certificates of their own, many in one process.

Each dials, greets, answers pings and comes back after a loss as an agent does. What is left out is what an agent does
at its box: a stream that is opened to one of these is answered here, with an echo. The certificates are made in bulk
with the server's own authority, and the server finds the names in its state folder, as if each had joined with a token.

`python -m benches.swarm ADDRESS FOLDER FIRST COUNT` takes its orders from standard input and ends with it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.trust.ca import CertificateAuthority, key_pem, spki_sha256
from cloud_server.trust.database import DATABASE_FILE, Database, Write
from cloud_server.trust.records import AGENTS, AgentRecord
from edge_agent.link import greeting
from edge_agent.link.addresses import Addresses
from edge_agent.link.greeting import Box
from edge_agent.link.links import Links
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier import Carrier, CarrierLost, DialOptions, dial_carrier
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import StreamError, TunnelError
from tunnel.core.wire.limits import MIB, SESSION_ID_BYTES, Limits

PER_PROCESS = 1700
"""So that Python's share of the machine is what these need, and not one interpreter's queue."""
DIALS_AT_ONCE = 48
"""Dials under way in one process. A box has processors of its own, and its handshake takes them for milliseconds; here
thousands share one, and if all dialled at once, none of them would be done before the server's patience ends."""
REPORT_S = 0.1


def name_of(number: int) -> str:
    """An agent's name."""
    return f"swarm-{number}"


@dataclass(frozen=True, slots=True)
class Count:
    """How the agents stand since the last `mark`."""

    connected: int
    """Agents that came up at least once."""
    again: int
    """Times that an agent came up after it had been up already."""


class Swarm:
    """The processes. Use `swarm()`."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes
        self._counts = [Count(0, 0)] * len(processes)
        self._marks = [0] * len(processes)
        self._mark = 0
        self._threads = [
            threading.Thread(target=self._read, args=(index,), daemon=True) for index in range(len(processes))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    def mark(self) -> None:
        """Count from here on."""
        self._mark += 1
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{self._mark}\n")
            process.stdin.flush()
        while set(self._marks) != {self._mark}:
            time.sleep(REPORT_S / 4)
            self._check()

    def count(self) -> Count:
        """Since the last mark."""
        self._check()
        return Count(sum(count.connected for count in self._counts), sum(count.again for count in self._counts))

    def wait(self, wanted: int, timeout_s: float) -> float:
        """Wait until so many agents have been up since the last mark; returns how long it took.

        Raises:
            RuntimeError: they were not in time.
        """
        start = time.perf_counter()
        while (count := self.count()).connected < wanted:
            if time.perf_counter() - start > timeout_s:
                raise RuntimeError(f"{count.connected} of {wanted} agents were up after {timeout_s:g} s")
            time.sleep(REPORT_S / 2)
        return time.perf_counter() - start

    def _check(self) -> None:
        for process in self._processes:
            if process.poll() is not None:
                raise RuntimeError(f"a process of agents ended with {process.returncode}")

    def _read(self, index: int) -> None:
        stdout = self._processes[index].stdout
        assert stdout is not None
        for line in stdout:
            mark, connected, again = map(int, line.split())
            self._counts[index] = Count(connected, again)
            self._marks[index] = mark


def enroll(state: Path, folder: Path, count: int) -> None:
    """Make agents' certificates in `folder`, and write them into a server's state as joined."""
    authority = CertificateAuthority.load(state, "longline")
    joined = datetime.now(UTC)
    writes = []
    folder.mkdir(exist_ok=True)
    (folder / "ca.crt").write_bytes(authority.pem)
    for name in map(name_of, range(count)):
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.crt").write_bytes(authority.issue_agent(name, key.public_key()))
        (folder / f"{name}.key").write_bytes(key_pem(key))
        record = AgentRecord(name=name, joined=joined, spki_sha256=spki_sha256(key.public_key()).hex())
        writes.append(Write(AGENTS.name, name, AGENTS.encode(record)))
    with closing(Database(state / DATABASE_FILE)) as database:
        database.commit(writes)


@contextmanager
def swarm(address: str, folder: Path, first: int, count: int, nice: int = 0) -> Iterator[Swarm]:
    """Agents `first` and so many that follow, all up when this begins.

    With `nice` they give way to the server, as boxes do that have processors of their own.
    """
    with ExitStack() as stack:
        processes = []
        for start in range(first, first + count, PER_PROCESS):
            words = [address, str(folder), str(start), str(min(PER_PROCESS, first + count - start))]
            process = subprocess.Popen(
                ["nice", "-n", str(nice), sys.executable, "-m", "benches.swarm", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(_end, process)
            processes.append(process)
        made = Swarm(processes)
        made.wait(count, 60.0 + count / 50)
        yield made


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


# Internal - the process itself


class _Agents:
    """Every agent of this process."""

    def __init__(self, address: str, folder: Path, first: int, count: int) -> None:
        self._numbers = range(first, first + count)
        self._times = dict.fromkeys(self._numbers, 0)
        self._links = [self._link(address, folder, number) for number in self._numbers]
        self._tasks = TaskOwner("swarm")
        self._mark = 0

    async def run(self) -> None:
        """Until standard input ends."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        threading.Thread(target=self._obey, args=(loop, ended), daemon=True).start()
        for number, link in zip(self._numbers, self._links, strict=True):
            self._tasks.spawn(name_of(number), link.run())
        while not ended.is_set():
            print(self._mark, *self._counts(), flush=True)
            await asyncio.sleep(REPORT_S)

    def _link(self, address: str, folder: Path, number: int) -> Links:
        name = name_of(number)
        tls = ClientTls(
            certificate=(folder / f"{name}.crt").read_bytes(),
            key=(folder / f"{name}.key").read_bytes(),
            ca=(folder / "ca.crt").read_bytes(),
        )

        box = Box(
            tls=tls, addresses=Addresses(folder / name, lambda _fault: None), acceptor=_echo,
            describe=lambda: tunnel_pb2.Node(hostname=name), version="swarm", limits=Limits(),
            memory=Budget(total_bytes=64 * MIB), instance_id=os.urandom(SESSION_ID_BYTES),
        )  # fmt: skip
        return Links([address], box, DialOptions(proxy="none"), _Ups(lambda: self._times, number))

    def _counts(self) -> tuple[int, int]:
        connected = sum(1 for times in self._times.values() if times)
        return connected, sum(self._times.values()) - connected

    def _obey(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(self._set_mark, int(line))
        loop.call_soon_threadsafe(ended.set)

    def _set_mark(self, mark: int) -> None:
        self._mark = mark
        self._times = dict.fromkeys(self._numbers, 0)


class _Ups:
    """Counts the links of one box."""

    def __init__(self, times: Callable[[], dict[int, int]], number: int) -> None:
        self._times = times
        self._number = number

    def up(self, *, resumed: bool) -> None:  # noqa: ARG002 - one as good as the other
        self._times()[self._number] += 1

    def failed(self, error: CarrierLost | TunnelError) -> None: ...

    def lost(self, error: CarrierLost | None) -> None: ...


def _take_turns() -> None:
    turns = asyncio.Semaphore(DIALS_AT_ONCE)

    async def dial(address: str, tls: ClientTls, options: DialOptions, at: Sequence[str] = ()) -> Carrier:
        async with turns:
            return await dial_carrier(address, tls, options, at)

    greeting.dial_carrier = dial  # type: ignore[attr-defined]  # a name that it imported


async def _echo(incoming: IncomingStream) -> None:
    stream = incoming.accept()
    try:
        while data := await stream.read():
            await stream.write(data)
        await stream.aclose()
    except StreamError:
        return


def main() -> None:
    """Run the agents."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    address, folder, first, count = sys.argv[1:]

    async def run() -> None:
        _take_turns()
        await _Agents(address, Path(folder), int(first), int(count)).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
