"""Twenty boxes at once: each is reached by its own name, and the server's restart brings all of them back."""

from __future__ import annotations

import concurrent.futures
import signal

import pytest

from tests.support.cluster import cluster
from tests.support.targets import Target
from tests.support.transfers import Transfer
from tests.support.tunnel import exchange

BOXES = 20
MIB = 1024 * 1024


@pytest.mark.e2e
@pytest.mark.timeout(180)
def test_twenty_boxes() -> None:
    names = [f"box-{number}" for number in range(BOXES)]
    with cluster() as made, Target("source") as source, Target("banner") as banner:
        made.start()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            ports = [f"127.0.0.1:{source.port}", f"127.0.0.1:{banner.port}"]
            list(pool.map(lambda name: made.join(name, allow=ports), names))
            list(pool.map(made.start_box, names))
        socks = [made.dial(f"{name}:{source.port}", timeout_s=60) for name in names]
        transfers = [Transfer(sock, 4 * MIB, seed=seed) for seed, sock in enumerate(socks)]
        for name in names:
            with made.dial(f"{name}:{banner.port}") as sock:
                assert exchange(sock, b"SSH-2.0-") == b"SSH-2.0-"
        for transfer, sock in zip(transfers, socks, strict=True):
            transfer.result()
            sock.close()
        assert max(box.agent.rss_bytes() for box in made.boxes.values()) < 90 * MIB
        for box in made.boxes.values():
            box.agent.send(signal.SIGTERM)
        assert [box.agent.wait() for box in made.boxes.values()] == BOXES * [0]
