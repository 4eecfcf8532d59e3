"""Links with delay, a rate and a router's queue, as a relay in user space plays them: what a copy leaves to a
keystroke, how soon a change is found, who else gets a share.

The series behind the changes go to `results/link-changes.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from benches.load import percentile
from benches.results import FOLDER, Samples
from benches.rig import Rig, rig
from benches.traffic import Copy, Pings, copy_down, copy_up
from tests.support.relay_pipe import Shape
from tests.support.relay_process import RelayProcess

NAME = "links with delay, rate and a 1 MB router queue (relay)"
MBIT = 1e6 / 8
MB = 1_000_000
QUEUE_BYTES = MB
SETTLE_S = 3.0
"""Before something steady is measured."""
BIN_S = 0.1


class Link(NamedTuple):
    """What the relay plays."""

    mbit: float
    """0 is without limit."""
    rtt_s: float

    @property
    def text(self) -> str:
        rate = f"{self.mbit:g} Mbit/s, " if self.mbit else ""
        return f"{rate}{self.rtt_s * 1e3:g} ms"

    @property
    def shape(self) -> Shape:
        return Shape(delay_s=self.rtt_s / 2, rate_bytes_s=self.mbit * MBIT, queue_bytes=QUEUE_BYTES)


CHANGES = {
    "rate 10 -> 1 -> 10 Mbit/s at 50 ms": (Link(10, 0.05), Link(1, 0.05), Link(10, 0.05)),
    "round trip 20 -> 200 -> 20 ms at 10 Mbit/s": (Link(10, 0.02), Link(10, 0.2), Link(10, 0.02)),
}


def measure(quick: bool) -> Samples:
    """Round by round, each round over daemons of its own; a quick one has some of the probes and keeps no series."""
    samples: Samples = defaultdict(list)
    series: dict[str, object] = {}
    for _ in range(1 if quick else 3):
        with rig(relay=True) as made:
            for figures in _quick_round(made, 4.0, series) if quick else _round(made, 15.0, series):
                for name, value in figures.items():
                    samples[name].append(value)
    if not quick:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "link-changes.json").write_text(json.dumps(series) + "\n")
    return samples


# Probes


def _round(made: Rig, seconds: float, series: dict[str, object]) -> Iterator[dict[str, float]]:
    yield _relay_alone(made)
    yield _fast(made)
    yield _beside_a_copy(made, Link(10, 0.05), seconds)
    yield _beside_a_copy(made, Link(1, 0.2), 2 * seconds)
    yield _both_ways(made, Link(5, 0.05), 2 * seconds)
    yield _neighbour(made, Link(10, 0.05), 2 * seconds)
    yield _changes(made, CHANGES, seconds, series)
    yield _busy(made)


def _quick_round(made: Rig, seconds: float, series: dict[str, object]) -> Iterator[dict[str, float]]:
    yield _beside_a_copy(made, Link(10, 0.05), seconds)
    yield _changes(made, dict(list(CHANGES.items())[:1]), seconds, series)


def _relay_alone(made: Rig) -> dict[str, float]:
    """What the relay itself can do, without a tunnel."""
    figures = {}
    for link in (Link(0, 0.0), Link(0, 0.05)):
        with RelayProcess(("127.0.0.1", made.direct.source), up=link.shape, down=link.shape) as relay:
            with Copy(relay.port) as copy:
                figures[f"the relay alone at {link.text}, MB/s"] = copy.rate(1.0, 3.0) / MB
    return figures


def _fast(made: Rig) -> dict[str, float]:
    """One stream, after its first seconds."""
    link = _set(made, Link(0, 0.05))
    figures = {}
    for way, port in (("down", made.tunnelled.source), ("up", made.tunnelled.sink)):
        with Copy(port, up=way == "up") as copy:
            figures[f"one stream {way} at {link.text}, MB/s"] = copy.rate(SETTLE_S, SETTLE_S + 3.0) / MB
    return figures


def _beside_a_copy(made: Rig, link: Link, seconds: float) -> dict[str, float]:
    """A keystroke's echo, idle and beside one copy; and what the copy got."""
    _set(made, link)
    size_bytes = int(link.mbit * MBIT * seconds)
    with Pings(made.tunnelled.echo) as pings:
        time.sleep(SETTLE_S + seconds / 2)
    idle = pings.sorted_ms(since_s=SETTLE_S)
    figures = {f"echo idle p50 at {link.text}, ms": percentile(idle, 0.5)}
    figures[f"echo idle p99 at {link.text}, ms"] = percentile(idle, 0.99)
    for way, copy, port in (("down", copy_down, made.tunnelled.source), ("up", copy_up, made.tunnelled.sink)):
        with Pings(made.tunnelled.echo) as pings:
            rate = copy(port, size_bytes)
        beside = pings.sorted_ms(since_s=SETTLE_S)
        figures[f"echo beside a copy {way} p50 at {link.text}, ms"] = percentile(beside, 0.5)
        figures[f"echo beside a copy {way} p99 at {link.text}, ms"] = percentile(beside, 0.99)
        figures[f"echo beside a copy {way} p99 at {link.text}, x idle"] = percentile(beside, 0.99) / percentile(
            idle, 0.5
        )
        figures[f"whole copy {way} at {link.text}, share of the link"] = rate / (link.mbit * MBIT)
    return figures


def _both_ways(made: Rig, link: Link, seconds: float) -> dict[str, float]:
    """A copy in each direction at the same time, and the echo beside them."""
    _set(made, link)
    size_bytes = int(link.mbit * MBIT * seconds)
    rates: dict[str, float] = {}

    def run(way: str, copy: Callable[[int, int], float], port: int) -> None:
        rates[way] = copy(port, size_bytes)

    with Pings(made.tunnelled.echo) as pings:
        threads = [
            threading.Thread(target=run, args=("down", copy_down, made.tunnelled.source)),
            threading.Thread(target=run, args=("up", copy_up, made.tunnelled.sink)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    beside = pings.sorted_ms(since_s=SETTLE_S)
    figures = {
        f"both ways: {way} at {link.text}, share of the link": rate / (link.mbit * MBIT) for way, rate in rates.items()
    }
    return figures | {f"both ways: echo p99 at {link.text}, ms": percentile(beside, 0.99)}


def _neighbour(made: Rig, link: Link, seconds: float) -> dict[str, float]:
    """A plain TCP connection that keeps the same router queue full, beside a copy through the tunnel."""
    assert made.link is not None
    _set(made, link)
    made.link.aim(("127.0.0.1", made.direct.source))
    with Copy(made.tunnelled.sink, up=True):
        time.sleep(SETTLE_S)
        with Copy(made.link.port) as plain:
            made.link.aim(("127.0.0.1", made.cluster.tunnel_port))
            time.sleep(SETTLE_S)
            carried, got = made.link.counters()["down_bytes"], plain.total
            start = time.perf_counter()
            time.sleep(seconds)
            took_s = time.perf_counter() - start
            carried, got = made.link.counters()["down_bytes"] - carried, plain.total - got
    full = link.mbit * MBIT * took_s
    return {
        f"beside plain TCP at {link.text}, share of the tunnel": (carried - got) / full,
        f"beside plain TCP at {link.text}, share of plain TCP": got / full,
    }


def _changes(
    made: Rig, changes: Mapping[str, tuple[Link, ...]], seconds: float, series: dict[str, object]
) -> dict[str, float]:
    """The link changes under a copy: until rate and queue are right again."""
    figures = {}
    for name, links in changes.items():
        _set(made, links[0])
        with Pings(made.tunnelled.echo) as pings, Copy(made.tunnelled.source) as copy:
            time.sleep(SETTLE_S)
            starts = []
            for link in links:
                _set(made, link, under_way=True)
                starts.append(time.perf_counter())
                time.sleep(seconds)
        kept = {"bin_s": BIN_S, "rate_mbit": copy.bins(BIN_S, starts[0]), "rtt_ms": pings.after(starts[0])}
        series[name] = kept | {"links": [(at - starts[0], *link) for at, link in zip(starts, links, strict=True)]}
        for before, link, start in zip(links, links[1:], starts[1:], strict=False):
            change = f"{before.mbit:g} -> {link.mbit:g} Mbit/s, {before.rtt_s * 1e3:g} -> {link.rtt_s * 1e3:g} ms"
            figures[f"right again after {change}, s"] = _settled_s(copy, pings, link, start, seconds)
    return figures


def _settled_s(copy: Copy, pings: Pings, link: Link, start: float, seconds: float) -> float:
    """From then on for a second the rate is within 20 % and no echo waits for a long queue; all there is, if never."""
    bins = copy.bins(BIN_S, start)
    echoes = pings.after(start)
    for first in range(int((seconds - 1.0) / BIN_S)):
        at_s = first * BIN_S
        rate = sum(bins[first : first + 10]) / 10
        calm = all(ms <= link.rtt_s * 1.3e3 + 20.0 for when, ms in echoes if at_s <= when < at_s + 1.0)
        if calm and abs(rate / link.mbit - 1.0) <= 0.2:
            return at_s
    return seconds


def _busy(made: Rig) -> dict[str, float]:
    """Every core is burnt by another process: what is left of the rate, beside what is left without a tunnel."""
    figures = {}
    for link in (Link(0, 0.0), Link(0, 0.05)):
        _set(made, link)
        with RelayProcess(("127.0.0.1", made.direct.source), up=link.shape, down=link.shape) as relay:
            rates = {}
            for subject, port in (("direct", relay.port), ("tunnel", made.tunnelled.source)):
                with Copy(port) as copy:
                    calm = copy.rate(SETTLE_S, SETTLE_S + 2.0)
                    with _burners():
                        busy = copy.rate(SETTLE_S + 3.0, SETTLE_S + 6.0)
                    again = copy.rate(SETTLE_S + 7.0, SETTLE_S + 9.0)
                rates[subject] = (busy / calm, again / calm)
        for subject, (busy, again) in rates.items():
            figures[f"busy cores at {link.text}, share of the calm rate | {subject}"] = busy
            figures[f"calm again at {link.text}, share of the calm rate | {subject}"] = again
    return figures


@contextmanager
def _burners() -> Iterator[None]:
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def _set(made: Rig, link: Link, *, under_way: bool = False) -> Link:
    """Make it another link: under what is under way, or once nothing is left of what was."""
    assert made.link is not None
    carried: dict[str, int] = {}
    while not under_way and carried != (carried := made.link.counters()):
        time.sleep(0.5)
    made.link.shape(up=link.shape, down=link.shape)
    return link
