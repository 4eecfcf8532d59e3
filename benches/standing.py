"""What it costs others, and how long it takes, when a user with thousands of streams is revoked.

Thousands of agents are connected. One user has most of the streams, one at each of so many agents; another has echoes
over a few, in a process of its own. The command is `cloud-server user revoke`, beside the server; what it takes of the
machine by itself is seen when it revokes a user without streams.
"""

from __future__ import annotations

import select
import selectors
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from benches.load import MESSAGE, percentile
from benches.results import Samples
from benches.swarm import enroll, name_of, swarm
from tests.support.cluster import Cluster, cluster
from tests.support.ports import free_ports
from tests.support.tunnel import read_exactly

NAME = "standing: a user with thousands of streams is revoked"
OTHERS = 4
"""Streams of the user who stays."""
STAYING = 20
"""Agents in a process that has no resets to take, among them those that the user who stays has streams to."""
SETTLE_S = 1.0
"""How long the echoes are timed behind the last end."""
ECHO_EVERY_S = 0.01
PORT = 7


def measure(quick: bool) -> Samples:
    """With 5,000 agents and 2,000 streams; when quick, with 100 and 50."""
    agents, streams, rounds = (100, 50, 1) if quick else (5000, 2000, 3)
    samples: Samples = defaultdict(list)
    with cluster() as made, ExitStack() as stack:
        (port,) = free_ports(1)
        made.configure({"socks": {"listen": f"127.0.0.1:{port}"}})
        folder = made.folder / "swarm"
        enroll(made.config.parent, folder, agents)
        users = [f"leaves-{number}" for number in range(rounds)]
        made.bind("stays", *users)
        made.start()
        concerned = agents - STAYING
        stack.enter_context(swarm(made.tunnel_address, folder, 0, concerned, nice=10))
        stack.enter_context(swarm(made.tunnel_address, folder, concerned, STAYING))
        stays = made.user_token("stays")
        for user in users:
            token = made.user_token(user)
            with _streams(port, token, range(streams)) as lost, _echoes(port, stays, agents - OTHERS) as echoes:
                _revoke(samples, made, user, echoes, lost, f"{agents} agents, {streams} streams")
    return samples


def _revoke(
    samples: Samples, made: Cluster, user: str, echoes: _Echoes, lost: list[socket.socket], subject: str
) -> None:
    idle = f"idle-{user}"
    made.typed("user", "add", idle)
    begin = time.perf_counter()
    made.typed("user", "revoke", idle)
    time.sleep(SETTLE_S)
    middle = time.perf_counter()
    made.typed("user", "revoke", user)
    start = time.perf_counter()
    took_s = _until_all_ended(lost, start)
    time.sleep(SETTLE_S)
    alone, during = echoes.end(begin, middle)
    samples[f"all streams ended after the command, s | {subject}"].append(took_s)
    for when, times in (("a user without streams is revoked", alone), ("this one is", during)):
        samples[f"echo of another user p50, ms | {when}"].append(percentile(times, 0.5))
        samples[f"echo of another user p99, ms | {when}"].append(percentile(times, 0.99))
        samples[f"echo of another user, longest, ms | {when}"].append(times[-1])


def _until_all_ended(lost: list[socket.socket], start: float) -> float:
    """How long it took until the last of them was reset; those that ended before `start` count as 0."""
    took_s = 0.0
    with selectors.DefaultSelector() as selector:
        for sock in lost:
            selector.register(sock, selectors.EVENT_READ, sock)
        while selector.get_map():
            if not (ready := selector.select(30)):
                raise RuntimeError(f"{len(selector.get_map())} streams of a revoked user go on")
            took_s = time.perf_counter() - start
            for key, _ in ready:
                selector.unregister(key.fileobj)
                try:
                    ended_cleanly = key.data.recv(1) == b""
                except ConnectionError:
                    continue
                raise RuntimeError(f"a stream of a revoked user {'ended cleanly' if ended_cleanly else 'went on'}")
    return max(took_s, 0.0)


class _Echoes:
    """The echoes of somebody who is not concerned."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def end(self, begin: float, middle: float) -> tuple[list[float], list[float]]:
        """Ends them; returns the times of those that began before a moment, and behind it, in milliseconds, sorted.

        Raises:
            RuntimeError: a stream did not last.
        """
        said, _ = self._process.communicate("", timeout=60)
        if self._process.returncode != 0:
            raise RuntimeError("another user's stream ended")
        times = [(float(start), float(took)) for start, took in map(str.split, said.splitlines())]
        before = sorted(took for start, took in times if begin <= start < middle)
        return before, sorted(took for start, took in times if start >= middle)


@contextmanager
def _echoes(port: int, token: str, first: int) -> Iterator[_Echoes]:
    words = [sys.executable, "-m", "benches.standing", str(port), str(first)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            print(token, file=process.stdin, flush=True)
            process.stdout.readline()
            yield _Echoes(process)
        finally:
            process.kill()


def main() -> None:
    """Echoes until standard input ends; then tells when each began and how long it took."""
    port, first = map(int, sys.argv[1:])
    token = sys.stdin.readline().strip()
    times: list[tuple[float, float]] = []
    with _streams(port, token, range(first, first + OTHERS)) as streams:
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], ECHO_EVERY_S)[0]:
            for sock in streams:
                start = time.perf_counter()
                _echo(sock)
                times.append((start, (time.perf_counter() - start) * 1e3))
    for start, took_ms in times:
        print(start, took_ms)


@contextmanager
def _streams(port: int, token: str, agents: range) -> Iterator[list[socket.socket]]:
    """One through SOCKS to each of these agents, all of which have echoed."""
    with ExitStack() as stack:
        made = []
        for number in agents:
            made.append(sock := stack.enter_context(closing(_dial(port, token, name_of(number)))))
            _echo(sock)
        yield made


def _dial(port: int, token: str, agent: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    password = token.encode()
    sock.sendall(b"\x05\x01\x02\x01\x02me" + bytes([len(password)]) + password)
    name = agent.encode()
    sock.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + PORT.to_bytes(2))
    if (answer := read_exactly(sock, 14))[:6] != b"\x05\x02\x01\x00\x05\x00":
        raise RuntimeError(f"SOCKS refuses {agent}: {answer!r}")
    return sock


def _echo(sock: socket.socket) -> None:
    sock.sendall(MESSAGE)
    if len(read_exactly(sock, len(MESSAGE))) != len(MESSAGE):
        raise RuntimeError("a connection ended")


if __name__ == "__main__":
    main()
