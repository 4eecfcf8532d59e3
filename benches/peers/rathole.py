"""rathole (Rust, tokio): a connection between its daemons for each connection of a client, plain TCP or noise."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from benches.peers.process import process, wait_echo
from benches.services import Services
from benches.subject import Subject
from tests.support.ports import free_ports

TOKEN = "bench"


@contextmanager
def rathole(program: Path, direct: Services, *, noise: bool) -> Iterator[Subject]:
    """Up, for as long as needed."""
    control, *ports = free_ports(4)
    tunnelled = Services(*ports)
    with TemporaryDirectory(prefix="longline-bench-") as name:
        folder = Path(name)
        at_server, at_client = _transports(program) if noise else ("", "")
        server, client = folder / "server.toml", folder / "client.toml"
        server.write_text(
            f'[server]\nbind_addr = "127.0.0.1:{control}"\ndefault_token = "{TOKEN}"\n{at_server}'
            + _services("server", "bind_addr", tunnelled)
        )
        client.write_text(
            f'[client]\nremote_addr = "127.0.0.1:{control}"\ndefault_token = "{TOKEN}"\n{at_client}'
            + _services("client", "local_addr", direct)
        )
        with (
            process([str(program), "--server", str(server)], folder) as server_pid,
            process([str(program), "--client", str(client)], folder) as client_pid,
        ):
            wait_echo(tunnelled.echo)
            title = "rathole noise" if noise else "rathole plain"
            yield Subject(title, tunnelled, (server_pid,), (client_pid,))


def _services(side: str, key: str, services: Services) -> str:
    return "".join(f'[{side}.services.{name}]\n{key} = "127.0.0.1:{port}"\n' for name, port in asdict(services).items())


def _transports(program: Path) -> tuple[str, str]:
    words = subprocess.run([str(program), "--genkey"], capture_output=True, text=True, check=True).stdout.split()
    private, public = (word for word in words if word.endswith("="))
    return (
        f'[server.transport]\ntype = "noise"\n[server.transport.noise]\nlocal_private_key = "{private}"\n',
        f'[client.transport]\ntype = "noise"\n[client.transport.noise]\nremote_public_key = "{public}"\n',
    )
