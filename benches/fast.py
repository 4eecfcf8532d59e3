"""Loopback: how much of a processor a tunnel needs, and how long a byte waits in it.

All subjects stand side by side, and each probe goes round them before the next begins, so that what else the machine
does meets all of them alike.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benches.clients import Clients, Window
from benches.peers.bore import bore
from benches.peers.build import programs
from benches.peers.rathole import rathole
from benches.results import Samples
from benches.rig import rig
from benches.subject import Subject
from benches.tables import OURS

NAME = "fast link (loopback)"
GIB = 1 << 30
MOST_CLIENTS = 8

Figures = dict[str, float]
Probe = Callable[[Subject, Clients, float], Figures]


def measure(quick: bool) -> Samples:
    """Round by round."""
    rounds, seconds = (1, 0.3) if quick else (5, 2.0)
    samples: Samples = defaultdict(list)
    with subjects() as them, Clients(MOST_CLIENTS + 1) as clients:
        idle = {subject: subject.rss_mb() for subject in them}
        for number in range(rounds):
            one_round(number, PROBES, them, clients, seconds, samples)
        for subject in them:
            _add(samples, subject, {f"RSS idle, {side}, MB": value for side, value in idle[subject].items()})
            _add(samples, subject, {f"RSS after, {side}, MB": value for side, value in subject.rss_mb().items()})
    return samples


def one_round(
    number: int, probes: Sequence[Probe], them: Sequence[Subject], clients: Clients, seconds: float, samples: Samples
) -> None:
    """Each probe of all subjects before the next probe; each round begins with another subject."""
    for probe in probes:
        for place in range(len(them)):
            subject = them[(place + number) % len(them)]
            _add(samples, subject, probe(subject, clients, seconds))


@contextmanager
def subjects() -> Iterator[list[Subject]]:
    """Ours, no tunnel, and what peers there are."""
    found = programs()
    with ExitStack() as stack:
        made = stack.enter_context(rig())
        direct = made.direct
        ours = Subject(OURS, made.tunnelled, (made.cluster.server.pid,), (made.box.agent.pid,))
        them = [ours, Subject("direct", direct)]
        if (program := found.get("rathole")) is not None:
            them.append(stack.enter_context(rathole(program, direct, noise=False)))
            them.append(stack.enter_context(rathole(program, direct, noise=True)))
        if (program := found.get("bore")) is not None:
            them.append(stack.enter_context(bore(program, direct)))
        yield them


def one(subject: Subject, clients: Clients, seconds: float) -> Figures:
    """One connection each way, and the daemons' CPU time for a GiB."""
    figures: Figures = {}
    for way in ("download", "upload"):
        rate, cpu_s_per_gib = _bulk(subject, clients, way, 1, seconds)
        figures[f"{way}, 1 connection, MB/s"] = rate
        if subject.server:
            figures[f"{way}, both daemons, CPU-s/GiB"] = cpu_s_per_gib
    return figures


def many(subject: Subject, clients: Clients, seconds: float) -> Figures:
    """Four and eight connections together."""
    return {
        f"{way}, {count} connections, MB/s": _bulk(subject, clients, way, count, seconds)[0]
        for way, count in (("upload", 4), ("download", 8), ("upload", 8))
    }


def idle_echo(subject: Subject, clients: Clients, seconds: float) -> Figures:
    """Round trips of 64 bytes with nothing beside them."""
    (client,) = clients[0]
    client.begin("echo", subject.services.echo, Window.of(seconds))
    median, tail = client.result()
    return {"echo idle, p50, ms": median, "echo idle, p99, ms": tail}


def busy_echo(subject: Subject, clients: Clients, seconds: float) -> Figures:
    """Four downloads, then the same with an echo beside them: what both pay."""
    alone, _ = _bulk(subject, clients, "download", 4, seconds)
    window = Window.of(seconds * 1.5)
    (client,) = clients[-1]
    client.begin("echo", subject.services.echo, window)
    beside, _ = _bulk(subject, clients, "download", 4, window=window)
    median, tail = client.result()
    return {
        "download, 4 connections, MB/s": alone,
        "echo beside 4 downloads, p50, ms": median,
        "echo beside 4 downloads, p99, ms": tail,
        "4 downloads beside an echo, share kept": beside / alone,
    }


def opens(subject: Subject, clients: Clients, seconds: float) -> Figures:
    """Connections that are opened, used for one byte and closed."""
    (client,) = clients[0]
    figures: Figures = {}
    for title, width in (("one by one", 1), ("64 at once", 64)):
        client.begin("opens", subject.services.echo, Window.of(seconds / 2), width=width)
        figures[f"opens, {title}, 1/s"] = client.result()
    return figures


PROBES: tuple[Probe, ...] = (one, idle_echo, busy_echo, many, opens)


def _bulk(
    subject: Subject, clients: Clients, way: str, count: int, seconds: float = 0.0, window: Window | None = None
) -> tuple[float, float]:
    """MB/s of all connections together, and CPU-s/GiB of all daemons together."""
    window = window or Window.of(seconds)
    port = subject.services.source if way == "download" else subject.services.sink
    for client in clients[:count]:
        client.begin(way, port, window)
    time.sleep(max(0.0, window.start - time.monotonic()))
    before = subject.cpu_s()
    time.sleep(max(0.0, window.end - time.monotonic()))
    used_s = subject.cpu_s() - before
    moved_bytes = sum(client.result() for client in clients[:count])
    return moved_bytes / (window.end - window.start) / 1e6, used_s * GIB / moved_bytes


def _add(samples: Samples, subject: Subject, figures: Figures) -> None:
    for name, value in figures.items():
        samples[f"{name} | {subject.name}"].append(value)
