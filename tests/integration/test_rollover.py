"""Another authority takes the place of the first: agents stay connected throughout, and nobody is locked out."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from functools import partial

import pytest
from cryptography import x509

from tests.support.cluster import Box
from tests.support.connect_client import connect_through
from tests.support.processes import command_result, run_command
from tests.support.tunnel import BOX, Tunnel, exchange, tunnel, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def made() -> Iterator[Tunnel]:
    with tunnel(("echo",)) as up:
        yield up


def authority(made: Tunnel, *words: str) -> str:
    return run_command("cloud-server", "authority", *words, "--config", str(made.cluster.config))


def behind(made: Tunnel) -> tuple[int, int, int]:
    """How many agents do not know the second, hold none of the first, and would be locked out."""
    shown = authority(made, "show")
    untold = re.search(r"(\d+) of \d+ agents have not got the second one yet", shown)
    other = re.search(r"(\d+) of \d+ agents hold no certificate of the first one", shown)
    lost = re.search(r"drop would lock out (\d+|no)", shown)
    assert untold is not None
    assert other is not None
    assert lost is not None
    return int(untold[1]), int(other[1]), 0 if lost[1] == "no" else int(lost[1])


def renew(box: Box) -> None:
    assert "has a fresh certificate" in run_command("edge-agent", "renew", "--config", str(box.config))


def issuer(pem: bytes) -> str:
    return x509.load_pem_x509_certificates(pem)[0].issuer.rfc4514_string()


def trusted(box: Box) -> list[str]:
    """The authorities in a box's file."""
    return [
        one.subject.rfc4514_string() for one in x509.load_pem_x509_certificates((box.state / "ca.crt").read_bytes())
    ]


def shown_to_boxes(made: Tunnel) -> str:
    """Who signed the certificate that the server shows."""
    return issuer(ssl.get_server_certificate(("127.0.0.1", made.cluster.tunnel_port)).encode())


def as_user(made: Tunnel, context: ssl.SSLContext) -> bytes:
    target = f"{BOX}:{made.targets['echo'].port}"
    with connect_through(("127.0.0.1", made.cluster.connect_port), target, tls=context) as sock:
        return exchange(sock)


def test_agents_stay_connected_and_one_that_was_off_all_the_time_comes_back(made: Tunnel) -> None:
    cluster, box = made.cluster, made.box
    state = cluster.config.parent
    off = cluster.join("box-off")
    cluster.start_box("box-off").agent.stop()
    old_user = cluster.operator_tls()
    (first,) = trusted(box)
    log_before = len(box.agent.log_text())
    with made.dial("echo") as stream:
        exchange(stream)
        authority(made, "add")
        assert behind(made) == (2, 0, 0)
        assert "0 certificates of users are not of the first one" in authority(made, "show")
        refused = command_result("cloud-server", "authority", "add", "--config", str(cluster.config))
        assert "LL2052" in refused.stderr
        renew(box)
        wait_until(lambda: behind(made)[0] == 1, "the server has seen that the agent took both")
        second = next(name for name in trusted(box) if name != first)
        assert trusted(box) == [first, second]

        authority(made, "move")
        wait_until(lambda: shown_to_boxes(made) == second, "the server shows the new authority's certificate")
        assert as_user(made, old_user) == b"ping", "a user of before, who knows the first authority alone"
        assert behind(made)[1:] == (2, 2)
        renew(box)
        assert issuer((box.state / "agent.crt").read_bytes()) == second
        wait_until(lambda: behind(made)[1:] == (1, 1), "the server has seen the agent's new certificate")

        refused = command_result("cloud-server", "authority", "drop", "--config", str(cluster.config))
        assert refused.returncode == 1
        assert "LL2053" in refused.stderr
        assert "1 of 2 agents would be locked out: box-off" in refused.stderr
        assert "1 certificate of users: dialer is not of the first one" in authority(made, "show")

        # It knows the first authority alone, and the server shows what that one signed for the second.
        assert trusted(off) == [first]
        cluster.start_box("box-off")
        renew(off)
        wait_until(lambda: behind(made)[1:] == (0, 0), "nobody is left behind")
        assert trusted(off) == [second, first]

        refused = command_result("cloud-server", "authority", "drop", "--config", str(cluster.config))
        assert "agents" not in refused.stderr
        assert "LL2053" in refused.stderr
        assert "good no more would be 1 certificate of users: dialer" in refused.stderr
        dropped = authority(made, "drop", "--force")
        assert first in dropped
        assert "locked out" not in dropped
        assert "good no more: 1 certificate of users: dialer" in dropped
        assert not (state / "ca-beside.key").exists()
        renew(box)
        assert trusted(box) == [second]
        exchange(stream)
    assert "session lost" not in box.agent.log_text()[log_before:]
    assert "resumed" in box.agent.log_text()[log_before:]

    wait_until(lambda: not accepted(made, old_user), "the old authority's users are refused")
    (cluster.folder / "dialer.kubeconfig").unlink()
    assert as_user(made, cluster.operator_tls()) == b"ping"
    cluster.join("box-new")
    cluster.start_box("box-new")


def accepted(made: Tunnel, context: ssl.SSLContext) -> bool:
    try:
        return as_user(made, context) == b"ping"
    except (OSError, AssertionError):
        return False


def test_a_change_of_mind_and_a_drop_by_force(made: Tunnel) -> None:
    (first,) = trusted(made.box)
    authority(made, "add")
    authority(made, "move")
    authority(made, "move")
    wait_until(lambda: shown_to_boxes(made) == first, "the first one signs again")
    assert first not in authority(made, "drop")
    renew(made.box)
    assert trusted(made.box) == [first]

    authority(made, "add")
    authority(made, "move")
    words = "authority", "drop", "--config", str(made.cluster.config)
    assert command_result("cloud-server", *words).returncode == 1
    assert f"locked out until they join anew: {BOX}" in run_command("cloud-server", *words, "--force")


def test_a_name_is_added_and_shown_to_new_connections(made: Tunnel) -> None:
    config = str(made.cluster.config)
    with made.dial("echo") as stream:
        exchange(stream)
        told = run_command("cloud-server", "certificate", "renew", "--config", config, "--host", "Tunnel.example.org")
        assert told == f"renewed {made.cluster.config.parent / 'server.crt'}\n"
        assert "tunnel.example.org" in run_command("cloud-server", "certificate", "show", "--config", config)
        for port in (made.cluster.tunnel_port, made.cluster.fleet_port):
            wait_until(partial(is_named, port, "tunnel.example.org"), "it is shown", 20)
        exchange(stream)
    again = run_command("cloud-server", "certificate", "renew", "--config", config, "--host", "tunnel.example.org")
    assert again == "nothing is due\n"
    bad = command_result("cloud-server", "certificate", "renew", "--config", config, "--host", "no name")
    assert "LL1008" in bad.stderr


def is_named(port: int, name: str) -> bool:
    """Whether a port shows a certificate with this name."""
    return name in names(port)


def names(port: int) -> list[str]:
    shown = x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode())
    found = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)
