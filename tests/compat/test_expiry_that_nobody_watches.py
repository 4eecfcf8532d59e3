"""A server that ran for 825 days was ready, its check was good, and every agent was refused: its certificate had ended.

Now it is renewed long before, or at the next start when it ran out; and the ends of those that nobody can renew by
itself are told by `check`, by the log and by the figures.
"""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from tests.support.clock import clock_of, needs_faketime
from tests.support.cluster import Cluster, cluster
from tests.support.pki import Authority, Issued
from tests.support.ports import free_ports
from tests.support.processes import command_result, run_command
from tests.support.tunnel import Tunnel, exchange, tunnel, wait_until
from tests.support.waits import scaled_s

pytestmark = pytest.mark.e2e


def shown(port: int) -> x509.Certificate:
    """What a listener shows to whoever comes."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=scaled_s(10))
    return x509.load_pem_x509_certificate(pem.encode())


@pytest.fixture
def old() -> Iterator[Cluster]:
    """A server that was set up before its certificate's whole life."""
    with cluster(prefix=clock_of("-830d")) as made:
        yield made


@needs_faketime
def test_a_server_whose_certificate_ran_out_while_it_was_down(old: Cluster) -> None:
    checked = command_result("cloud-server", "check", "--config", str(old.config))
    assert "server.crt expired on" in checked.stdout
    assert "renews it by itself" in checked.stdout
    assert checked.returncode == 1, "the operator's login is over, and nobody can renew that but they"
    assert "admin.kubeconfig expired on" in checked.stderr
    (port,) = free_ports(1)
    old.configure({"metrics": {"listen": f"127.0.0.1:{port}"}})
    old.start()
    old.join("box-7")
    old.start_box("box-7")
    end = shown(old.tunnel_port).not_valid_after_utc
    assert end - datetime.now(UTC) > timedelta(days=824)
    assert shown(old.fleet_port).not_valid_after_utc == end

    figures = scraped(port)
    assert figures["longline_certificate_expiry_seconds", "server"] == end.timestamp()
    box_end = datetime.fromtimestamp(figures["longline_agent_certificate_expiry_seconds", "box-7"], UTC)
    assert timedelta(days=6) < box_end - datetime.now(UTC) < timedelta(days=8)
    listed = run_command("cloud-server", "agent", "list", "--config", str(old.config))
    assert "\tcertificate until 2" in listed


def scraped(port: int) -> dict[tuple[str, str], float]:
    """Figures by their name and the value of their first label."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=scaled_s(10)) as page:
        families = text_string_to_metric_families(page.read().decode())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, next(iter(sample.labels.values()), "")): sample.value for sample in samples}


@needs_faketime
def test_one_that_ran_out_is_renewed_by_a_command_when_nothing_runs(old: Cluster) -> None:
    state = old.config.parent
    renew = "cloud-server", "certificate", "renew", "--config", str(old.config)
    assert run_command(*renew) == f"renewed {state / 'server.crt'}\n"
    assert run_command(*renew) == "nothing is due\n"


def serial_numbers(tunnel: Tunnel) -> set[int]:
    """Of what all ports show."""
    made = tunnel.cluster
    return {shown(port).serial_number for port in (made.tunnel_port, made.connect_port, made.fleet_port)}


def test_a_renewal_under_a_running_server_is_seen_by_all_that_is_new_and_felt_by_nothing_that_runs() -> None:
    with tunnel(("echo",)) as made:
        (before,) = serial_numbers(made)
        with made.dial("echo") as running:
            exchange(running)
            state = made.cluster.config.parent
            (state / "hosts").write_text((state / "hosts").read_text() + "new.example.com\n")
            wait_until(lambda: before not in serial_numbers(made), "every port shows the new one", 20)
            (after,) = serial_numbers(made)
            names = shown(made.cluster.fleet_port).extensions.get_extension_for_class(x509.SubjectAlternativeName)
            assert "new.example.com" in names.value.get_values_for_type(x509.DNSName)
            exchange(running)
        assert "disconnected" not in made.box.agent.log_text()
        made.cluster.join("box-8")
        made.cluster.start_box("box-8")
        made.box.agent.stop()
        made.restart_box()
        run_command("cloud-server", "certificate", "renew", "--config", str(made.cluster.config), "--all")
        wait_until(lambda: after not in serial_numbers(made), "a command's renewal is seen too", 20)
        made.cluster.join("box-9")
        made.cluster.start_box("box-9")


def test_a_certificate_of_ones_own_authority_is_taken_up_when_its_files_change_and_told_when_it_nears_its_end() -> None:
    own = Authority("own CA")

    def issue(days_left: int) -> Issued:
        begin, end = timedelta(days=days_left - 90), timedelta(days=days_left)
        return own.issue(uris=["spiffe://longline/server"], hosts=["127.0.0.1"], starts_in=begin, ends_in=end)

    with cluster() as made:
        state = made.config.parent
        near, fresh = issue(5), issue(90)
        near.write(state, "mine")
        (state / "mine.ca").write_bytes(own.pem)
        tls = {"certificate": "mine.crt", "key": "mine.key", "client_ca": "mine.ca"}
        made.configure({"tunnel": {"listen": [made.tunnel_address], **tls}})
        made.start()
        made.server.wait_for_log("mine.crt expires in 4 days", 10)
        ports = (made.tunnel_port, made.connect_port, made.fleet_port)
        assert {shown(port).serial_number for port in ports} == {near.certificate.serial_number}
        fresh.write(state, "mine")
        expected = {fresh.certificate.serial_number}
        wait_until(
            lambda: {shown(port).serial_number for port in ports} == expected, "every port shows the new one", 20
        )
        assert made.server.running


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


@needs_faketime
def test_a_users_certificate_that_is_near_its_end_is_told_once() -> None:
    with cluster() as made:
        # Of 365 days, 20 are left.
        kubeconfig = made.folder / "ann.kubeconfig"
        words = ["--config", str(made.config)]
        run_command("cloud-server", "user", "add", "ann", *words, prefix=clock_of("-345d"))
        year = ["cloud-server", "user", "certificate", "ann", "--expires", "365d", *words]
        kubeconfig.write_text(made.with_certificate("ann", run_command(*year, prefix=clock_of("-345d"))))
        made.start()
        for _ in range(3):
            run_command("kubectl", "--kubeconfig", str(kubeconfig), "get", "nodes")
        told = [
            line for line in lines(made.server.log) if line.get("event") == "certificate" and "ann" in line["reason"]
        ]
        assert [line["level"] for line in told] == ["warning"]
        assert "expires in 19 days" in told[0]["reason"]
        assert "cloud-server user certificate ann" in told[0]["reason"]
