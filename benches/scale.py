"""What the daemons cost as they grow: memory at rest and after work, idle connections, thousands of agents, a storm."""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import psutil

from benches.load import MESSAGE, dial, download, percentile, upload
from benches.rig import BOX, rig
from benches.services import services
from benches.swarm import Swarm, enroll, name_of, swarm
from tests.support.cluster import Cluster, cluster

NAME = "scale: memory, idle connections, thousands of agents, a storm"

GIB = 1 << 30
SETTLE_S = 3.0
STORM_S = 120.0
"""A storm that is not over by then failed."""
CYCLE_S = 60.0
"""Within which each agent of thousands asks for life once (`tunnel.pings_per_s`)."""
FIRST_PINGS_S = 12.0
"""After that the last of them was told so: it asks first 10 s after it has connected."""
WATCH_S = 5.0
"""How long the agents are watched after a storm: none may lose its link again."""
ECHOES = 4000
"""Round trips, in rounds over all streams, of which each costs what one costs."""
ECHO_EVERY_S = 0.01

Samples = dict[str, list[float]]


def measure(quick: bool) -> Samples:
    """All of it; when quick without gigabytes, and with 200 agents in place of 5,000 and 9,000."""
    samples: Samples = defaultdict(list)
    if not quick:
        _bytes_moved(samples, 10 * GIB)
    _idle_connections(samples, 200 if quick else 1000)
    steps = (10,) if quick else (10, 100, 1000)
    _streams_of_one(samples, steps)
    _streams_of_many(samples, steps)
    _many_agents(samples, *((200, 0, 3.0) if quick else (5000, 9000, CYCLE_S)))
    return samples


def _bytes_moved(samples: Samples, size_bytes: int) -> None:
    """Resident memory at rest, and when so many bytes have gone through, half of them each way."""
    with rig() as made:
        time.sleep(SETTLE_S)
        idle = made.usage()
        download(made.tunnelled.source, size_bytes // 2)
        upload(made.tunnelled.sink, size_bytes // 2)
        time.sleep(SETTLE_S)
        after = made.usage()
        for daemon, used in idle.items():
            samples[f"{daemon} RSS at rest, MB"].append(used.rss_mb)
            grown = after[daemon].rss_mb - used.rss_mb
            samples[f"{daemon} RSS grown after {size_bytes / GIB:.0f} GiB, MB"].append(grown)


def _idle_connections(samples: Samples, count: int) -> None:
    """What both daemons hold for a connection that moved a few bytes and then nothing."""
    with rig() as made:
        with _streams(lambda: dial(made.tunnelled.echo), 50):
            pass
        time.sleep(SETTLE_S)
        before = made.usage()
        with _streams(lambda: dial(made.tunnelled.echo), count):
            time.sleep(SETTLE_S)
            after = made.usage()
        both = 0.0
        for daemon, used in after.items():
            grown = (used.rss_mb - before[daemon].rss_mb) * 1e3 / count
            samples[f"{daemon}: an idle connection of {count}, kB"].append(grown)
            both += grown
        samples[f"both: an idle connection of {count}, kB"].append(both)


def _streams_of_one(samples: Samples, steps: Sequence[int]) -> None:
    """One agent with more and more open streams: what an echo over one of them costs the server, and the agent."""
    for count in steps:
        with rig() as made:
            target = f"{BOX}:{made.direct.echo}"
            pids = {"server": made.cluster.server.pid, "agent": made.box.agent.pid}
            _echo_cost(
                samples, pids, f"1 agent, {count} streams", partial(made.cluster.dial, target, timeout_s=60), count
            )


def _streams_of_many(samples: Samples, steps: Sequence[int]) -> None:
    """More and more agents with a stream each."""
    with cluster() as made:
        enroll(made.config.parent, made.folder / "swarm", max(steps))
        made.start()
        with swarm(made.tunnel_address, made.folder / "swarm", 0, max(steps)):
            for count in steps:
                numbers = iter(range(count))
                _echo_cost(
                    samples,
                    {"server": made.server.pid},
                    f"{count} agents, a stream each",
                    lambda: made.dial(f"{name_of(next(numbers))}:7", timeout_s=60),  # noqa: B023 - used up in this turn
                    count,
                )


def _echo_cost(
    samples: Samples, pids: dict[str, int], subject: str, open_one: Callable[[], socket.socket], count: int
) -> None:
    """CPU of an echo, in rounds that go over all streams at once."""
    rounds = max(2, ECHOES // count)
    with _streams(open_one, count) as streams:
        _round(streams)
        before = {name: _cpu_s(pid) for name, pid in pids.items()}
        for _ in range(rounds):
            _round(streams)
        for name, pid in pids.items():
            cost = (_cpu_s(pid) - before[name]) / rounds / count
            samples[f"{name} CPU of an echo, us | {subject}"].append(cost * 1e6)


def _many_agents(samples: Samples, count: int, more: int, watch_s: float) -> None:
    """Agents at rest: the server's memory and CPU; then its end, and their return."""
    with ExitStack() as stack:
        echo = stack.enter_context(services()).echo
        made = stack.enter_context(cluster())
        port = made.forward(BOX, f"127.0.0.1:{echo}")
        folder = made.folder / "swarm"
        enroll(made.config.parent, folder, max(count, more))
        made.start()
        made.join(BOX, allow=[f"127.0.0.1:{echo}"])
        made.start_box(BOX)
        time.sleep(SETTLE_S)
        alone_mb = _rss_mb(made.server.pid)
        agents = stack.enter_context(swarm(made.tunnel_address, folder, 0, count))
        _at_rest(samples, made, alone_mb, count, watch_s)
        _storm(samples, made, agents, port, count, "killed", made.server.kill)
        _storm(samples, made, agents, port, count, "stopped", lambda: made.server.stop(60.0))
        if more > count:
            made.server.kill()
            made.start()
            agents.mark()
            agents.wait(count, STORM_S)
            stack.enter_context(swarm(made.tunnel_address, folder, count, more - count))
            _at_rest(samples, made, alone_mb, more, watch_s)


def _at_rest(samples: Samples, made: Cluster, alone_mb: float, count: int, watch_s: float) -> None:
    time.sleep(min(FIRST_PINGS_S, watch_s))
    before, start = _cpu_s(made.server.pid), time.perf_counter()
    time.sleep(watch_s)
    used = (_cpu_s(made.server.pid) - before) / (time.perf_counter() - start)
    samples[f"server, memory of an agent, kB | {count} agents"].append(
        (_rss_mb(made.server.pid) - alone_mb) * 1e3 / count
    )
    samples[f"server, CPU at rest, % | {count} agents"].append(100 * used)


def _storm(
    samples: Samples, made: Cluster, agents: Swarm, port: int, count: int, how: str, end: Callable[[], object]
) -> None:
    """The server ends and starts: when are all agents back, is any disturbed, and what does a user feel meanwhile."""
    agents.mark()
    start = time.perf_counter()
    end()
    if how == "stopped":
        agents.mark()  # those that came back to a server that was about to end
    made.start()
    watch = _Watch(port)
    agents.wait(count, STORM_S)
    took_s = time.perf_counter() - start
    time.sleep(WATCH_S)
    times = watch.end()
    subject = f"{count} agents, server {how}"
    samples[f"storm: all back after, s | {subject}"].append(took_s)
    samples[f"storm: links lost again | {subject}"].append(float(agents.count().again))
    samples[f"storm: first echo after, s | {subject}"].append(watch.first_s - start)
    samples[f"storm: echo p50, ms | {subject}"].append(percentile(times, 0.5))
    samples[f"storm: echo p99, ms | {subject}"].append(percentile(times, 0.99))


class _Watch:
    """A user at the real box: echoes from the moment that one comes back until the end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._times: list[float] = []
        self._ended = threading.Event()
        self.first_s = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> list[float]:
        """The times of all echoes in milliseconds, sorted."""
        self._ended.set()
        self._thread.join()
        if not self._times:
            raise RuntimeError("the real box was not back at the end of the storm")
        return sorted(self._times)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with dial(self._port) as sock:
                    sock.settimeout(30)
                    self._echo(sock)
            except OSError:
                time.sleep(0.05)

    def _echo(self, sock: socket.socket) -> None:
        while not self._ended.is_set():
            start = time.perf_counter()
            sock.sendall(MESSAGE)
            if not _received(sock):
                return
            now = time.perf_counter()
            if self.first_s:
                self._times.append((now - start) * 1e3)  # the first waited for the box
            else:
                self.first_s = now
            time.sleep(ECHO_EVERY_S)


@contextmanager
def _streams(open_one: Callable[[], socket.socket], count: int) -> Iterator[list[socket.socket]]:
    """So many connections, each of which moved a message there and back."""
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            sock = stack.enter_context(closing(open_one()))
            sock.settimeout(60)
            made.append(sock)
            _round([sock])
        yield made


def _round(streams: list[socket.socket]) -> None:
    for sock in streams:
        sock.sendall(MESSAGE)
    for sock in streams:
        if not _received(sock):
            raise RuntimeError("a connection ended")


def _received(sock: socket.socket) -> bool:
    left = len(MESSAGE)
    while left:
        got = len(sock.recv(left))
        if not got:
            return False
        left -= got
    return True


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _rss_mb(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6
