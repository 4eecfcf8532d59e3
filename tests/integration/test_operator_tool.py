"""`longline connect`, as a person or ssh's ProxyCommand uses it, against real daemons."""

from __future__ import annotations

import hashlib
import subprocess

import pytest

from tests.support.processes import BIN, command_result, environment
from tests.support.targets import pattern
from tests.support.tunnel import Tunnel

MIB = 1024 * 1024


def joined(tunnel: Tunnel, way: str, target: str, said: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run it with something to say; half-close follows it."""
    cluster = tunnel.cluster
    via = {"unix": str(cluster.unix_socket), "tls": f"127.0.0.1:{cluster.connect_port}"}[way]
    command = [str(BIN / "longline"), "connect", "--via", via, target]
    if way == "tls":
        command += ["--kubeconfig", str(cluster.kubeconfig())]
    return subprocess.run(command, input=said, capture_output=True, env=environment(), timeout=30)


@pytest.mark.parametrize("way", ["unix", "tls"])
def test_half_close_and_every_byte(shared: Tunnel, way: str) -> None:
    said = b"".join(pattern(7, 4 * MIB))
    done = joined(shared, way, f"{shared.box.name}:{shared.targets['late-echo'].port}", said)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(said).digest()


@pytest.mark.parametrize("way", ["unix", "tls"])
def test_a_refusal_is_one_line_with_the_reason(shared: Tunnel, way: str) -> None:
    done = joined(shared, way, f"{shared.box.name}:1", b"")
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"not allowed by this box's [[allow]] rules" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_reset_is_no_success(shared: Tunnel) -> None:
    done = joined(shared, "tls", f"{shared.box.name}:{shared.targets['reset'].port}", b"x")
    assert done.returncode == 1
    assert b"the connection broke" in done.stderr


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{box}:1", "Error [LL4102]: agent {box}: localhost:1 ("),
        ("{box}:printer", "Error [LL4104]: "),
        ("box-9:22", "Error [LL4003]: no agent for box-9, did you mean {box}? "),
        ("{box}", "Error [LL4004]: no port in the name; "),
    ],
)
def test_the_cause_of_a_refusal_reaches_whoever_asked_from_wherever_it_lies(
    shared: Tunnel, target: str, says: str
) -> None:
    """The box's own refusal crosses the wire with its code; the page of it is there without a network."""
    done = joined(shared, "tls", target.format(box=shared.box.name), b"x")
    assert done.returncode == 1
    assert done.stderr.decode().startswith(says.format(box=shared.box.name))
    code = done.stderr.decode()[7:13]
    assert command_result("longline", "explain", code).stdout.startswith(f"# {code}: ")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--via", "127.0.0.1:1"], 2, "needs --kubeconfig"),
        (["--via", "/nowhere/connect.sock"], 1, "no such file"),
        ([], 1, "name your kubeconfig with --kubeconfig"),
    ],
)
def test_slips(words: list[str], code: int, says: str) -> None:
    done = command_result("longline", "connect", *words, "box-7:22")
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_version() -> None:
    done = command_result("longline", "version")
    assert done.returncode == 0
    assert done.stdout.strip() == command_result("longline", "--version").stdout.split()[-1]
