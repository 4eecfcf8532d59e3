"""What an open and a mebibyte cost, counted and not timed: lines of ours that are run, packets, bytes on the wire.

The clock is virtual and nothing is left to chance, so each count is the same on every machine, busy or idle; releases
of Python differ by some per cent (noted: 3.11). Nothing may grow by more than `MAX_GROWTH` over what is noted here.
Where a count grows for a good reason, or shrinks, note the new one: `pytest -s` prints it. What it means in time,
`make bench` tells.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from benches.rights import asks, big_policy
from cloud_server.agents.agents import Agents
from cloud_server.agents.directory import MemoryDirectory
from cloud_server.frontends.logins import RefusedLogins
from cloud_server.opens.door import Door
from cloud_server.opens.live import LiveOpens
from cloud_server.opens.local import Local
from cloud_server.operate.metrics import Metrics, Sources
from cloud_server.rights.policy_file import load_policy
from cloud_server.routing.route import Route
from cloud_server.trust.standing import Standing
from tests.core.traffic import App, Echo, Pinger, Sink, Source, Traffic
from tests.support.doors import Records, asking, who
from tests.support.joined import TARGET, echo, joined
from tests.support.policies import everybody_may_all
from tests.support.simulation import Simulation
from tunnel.aio.operate.audit import AuditLog
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.limits import MIB

MAX_GROWTH = 0.15
_TOP = Path(__file__).parent.parent
OURS = str(_TOP / "tunnel") + "/"
DOOR = (OURS, str(_TOP / "cloud_server") + "/")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one open, or of one MiB, on both sides together. 0 is not counted."""

    lines: float
    packets: float = 0
    overhead_bytes: float = 0
    """What the sessions hand to their carriers beside what the streams carry."""


class Lines:
    """How many lines of our sources were run: of those in `tunnel/`, unless told otherwise."""

    def __init__(self, *, of: str | tuple[str, ...] = OURS) -> None:
        self._of = of
        self.count = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """While this is entered."""
        former = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(former)

    def _call(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        return self._line if frame.f_code.co_filename.startswith(self._of) else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        self.count += event == "line"
        return self._line


class Rack(Simulation):
    """A link as between two hosts of one rack, that counts what goes over it."""

    def __init__(self) -> None:
        self.packets = self.wire_bytes = 0
        super().__init__(rate_bytes_per_s=1e9, delay_s=0.0001)
        self.traffic = Traffic(self)

    def _send(self, index: int, message: bytes) -> None:
        self.packets += 1
        self.wire_bytes += len(message)
        super()._send(index, message)

    def cost(self, work: Callable[[], None], units: int, payload_bytes: int) -> Cost:
        """Of one of `units`, each of which carries so much."""
        lines, packets, wire_bytes = Lines(), self.packets, self.wire_bytes
        with lines.counted():
            work()
        carried_bytes = (self.wire_bytes - wire_bytes) / units
        return Cost(lines.count / units, (self.packets - packets) / units, carried_bytes - payload_bytes)


class Visitor(Pinger):
    """Opens, sends a keystroke, hears its echo, and is done."""

    def received(self, chunk: bytes) -> None:
        self.host.session.send_fin(self.stream, self.sim.now)


def opens(rack: Rack, at_once: int, count: int) -> None:
    for _ in range(count // at_once):
        visitors = [Visitor() for _ in range(at_once)]
        for visitor in visitors:
            rack.traffic.open(rack.server, visitor, Echo())
        assert rack.run(until=functools.partial(all_over, visitors))
        assert all(visitor.received_bytes == 64 for visitor in visitors)


def all_over(apps: Sequence[App]) -> bool:
    return all(app.over for app in apps)


def copies(rack: Rack, at_once: int, each_bytes: int, *, up: bool) -> None:
    sinks = [Sink() for _ in range(at_once)]
    for sink in sinks:
        source = Source(each_bytes)
        rack.traffic.open(rack.server, *((source, sink) if up else (sink, source)))
    assert rack.run(until=functools.partial(all_over, sinks))
    assert all(sink.received_bytes == each_bytes for sink in sinks)


def check(cost: Cost, noted: Cost) -> None:
    """Compare with what is noted."""
    print(cost)
    grown = {
        name: f"{value:.1f}, noted {limit:.1f}"
        for (name, value), limit in zip(asdict(cost).items(), asdict(noted).values(), strict=True)
        if value > limit * (1 + MAX_GROWTH)
    }
    assert not grown


@pytest.mark.parametrize(
    ("at_once", "noted"),
    [(1, Cost(lines=4260, packets=6, overhead_bytes=134)), (64, Cost(lines=4025, packets=6.0, overhead_bytes=128))],
)
def test_an_open_with_a_keystroke_and_its_echo(at_once: int, noted: Cost) -> None:
    rack = Rack()
    opens(rack, at_once, 64)
    check(rack.cost(lambda: opens(rack, at_once, 256), 256, 2 * 64), noted)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize(
    ("at_once", "noted"),
    [
        (1, Cost(lines=3767, packets=3.3, overhead_bytes=220)),
        (8, Cost(lines=4391, packets=3.9, overhead_bytes=238)),
    ],
)
def test_a_mebibyte_of_a_copy(at_once: int, up: bool, noted: Cost) -> None:
    rack = Rack()
    copies(rack, 1, 16 * MIB, up=up)  # to learn the link's rate
    total_mib = 64
    check(rack.cost(lambda: copies(rack, at_once, total_mib * MIB // at_once, up=up), total_mib, MIB), noted)


@pytest.mark.looptime
async def test_an_open_of_a_whole_session() -> None:
    """With what drives the core: tasks, events, wake-ups."""
    count = 100
    lines = Lines()
    async with joined(echo, clock=asyncio.get_running_loop().time) as both:
        with lines.counted():
            for _ in range(count):
                stream = await both.server.open(TARGET, deadline_s=5)
                await stream.write(b"x")
                assert await stream.read() == b"x"
                await stream.write_eof()
                assert await stream.read() == b""
    check(Cost(lines.count / count), Cost(lines=3760))


def test_an_ask_of_a_big_policy(tmp_path: Path) -> None:
    """Of 1,000 roles and 10,000 bindings: it must not grow with what other users have."""
    path = tmp_path / "policy.toml"
    path.write_text(big_policy())
    rights = load_policy(path).rights
    asked = list(itertools.islice(asks(), 200))
    for ask in asked:
        assert rights.decide(ask).allowed
    lines = Lines(of=DOOR)
    with lines.counted():
        for ask in asked:
            rights.decide(ask)
    check(Cost(lines.count / len(asked)), Cost(lines=189))


class NobodyJoined:
    """The box is known by its session alone."""

    def names(self) -> Sequence[str]:
        return ()

    def joined(self, name: str) -> None:
        return None

    def validity(self, name: str) -> None:
        return None


class _NobodyCame:
    """The links of agents, of which there were none."""

    links: Mapping[str, int] = {}
    lost: Mapping[str, int] = {}
    refused: Mapping[str, int] = {}
    memory = Budget(total_bytes=0)


NOBODY_CAME = _NobodyCame()


def sources_of(agents: Agents, live: LiveOpens) -> Sources:
    """What no open asks."""
    audit = AuditLog("/dev/null")
    audit.close()
    return Sources(
        agents=agents,
        live=live,
        logins=RefusedLogins(Records()),
        audit=audit,
        connections=dict,
        strangers=dict,
        limits=list,
        calls_refused=dict,
        connections_cut=dict,
        lost_lines=lambda: 0,
        parts=dict,
        expiries=dict,
        links=NOBODY_CAME,
        handshakes_failed=dict,
        config=lambda: None,
        policy=NoPolicy,
        cluster_ages_s=dict,
        unreadable=lambda: 0,
    )


class NoPolicy:
    """How a policy stands that there is none of."""

    generation = 1
    fault = ""
    needs_restart: list[str] = []  # noqa: RUF012
    loaded = datetime.now(UTC)


class Ways:
    """All ways lead to one box."""

    def routes(self, authority: str) -> list[Route]:
        return [Route("box-7", TARGET)]


@pytest.mark.looptime
async def test_what_the_door_adds_to_an_open() -> None:
    """Route, policy, standing, both records, the table and the figures: what is beside the session's own work."""
    count, audit = 100, Records()
    live, directory = LiveOpens(), MemoryDirectory()
    async with joined(echo) as both:
        directory.put("box-7", both.server)
        agents = Agents(NobodyJoined(), directory)
        counts = Metrics("1", sources_of(agents, live))
        known = who({"secret": "ann"})
        standing, caller = Standing(known.again), known.by_token("secret")
        door = Door(live, Ways(), everybody_may_all(), audit, Local(agents, directory), counts, standing)
        costs = []
        for through_the_door in (False, True):
            lines = Lines(of=DOOR)
            with lines.counted():
                for _ in range(count):
                    if through_the_door:
                        opened = await door.open(asking(caller=caller))
                        assert opened is not None
                        stream = opened.opened()
                    else:
                        stream = await both.server.open(TARGET, deadline_s=5)
                    await stream.write(b"x")
                    assert await stream.read() == b"x"
                    await stream.write_eof()
                    assert await stream.read() == b""
            costs.append(lines.count / count)
    assert [record["event"] for record in audit] == ["open", "end"] * count
    check(Cost(costs[1] - costs[0]), Cost(lines=467))
