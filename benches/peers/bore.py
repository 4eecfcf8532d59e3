"""bore (Rust, tokio): as rathole on plain TCP, with a process at the services' side for each port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from pathlib import Path
from tempfile import TemporaryDirectory

from benches.peers.process import process, wait_echo, wait_listening
from benches.services import Services
from benches.subject import Subject
from tests.support.ports import free_ports

HOST = "127.0.0.9"
"""Its control port cannot be chosen: an address of its own keeps clear of a bore that runs here already."""
CONTROL_PORT = 7835


@contextmanager
def bore(program: Path, direct: Services) -> Iterator[Subject]:
    """Up, for as long as needed."""
    ports = free_ports(3)
    tunnelled = Services(*ports)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="longline-bench-")))
        words = [str(program), "server", "--bind-addr", HOST, "--bind-tunnels", "127.0.0.1"]
        server = stack.enter_context(process(words, folder))
        wait_listening(CONTROL_PORT, HOST)
        clients = []
        for local, remote in zip(astuple(direct), ports, strict=True):
            words = [
                str(program),
                "local",
                str(local),
                "--local-host",
                "127.0.0.1",
                "--to",
                HOST,
                "--port",
                str(remote),
            ]
            clients.append(stack.enter_context(process(words, folder)))
        wait_echo(tunnelled.echo)
        yield Subject("bore plain", tunnelled, (server,), tuple(clients))
