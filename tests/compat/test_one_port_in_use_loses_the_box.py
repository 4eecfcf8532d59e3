"""Check, then restart, over the tunnel: a `[[listen]]` port that is in use must not cost the way to the box.

The same for a `[[forward]]` of the server, an address that no interface has yet, a socket's folder that is missing, and
an account that does not exist.
"""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.cluster import cluster
from tests.support.ports import free_ports
from tests.support.processes import command_result
from tests.support.tunnel import Tunnel, exchange, tunnel, wait_until

NOT_HERE = "192.0.2.1:8080"
NOBODY = "no-such-user"


def works(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        return exchange(sock) == b"ping"


@pytest.mark.e2e
def test_everything_else_works_and_the_part_comes_up_when_it_can() -> None:
    with (
        tunnel(["echo"]) as made,
        socket.create_server(("127.0.0.1", 0)) as at_box,
        socket.create_server(("127.0.0.1", 0)) as at_cloud,
    ):
        restart_with_parts_down(made, at_box, at_cloud)


def restart_with_parts_down(made: Tunnel, at_box: socket.socket, at_cloud: socket.socket) -> None:
    server, box = made.cluster.server, made.box
    echo = f"127.0.0.1:{made.targets['echo'].port}"
    box_port, cloud_port = (taken.getsockname()[1] for taken in (at_box, at_cloud))
    (metrics_port,) = free_ports(1)
    box.configure(
        {
            "listen": [{"listen": f"127.0.0.1:{box_port}", "target": echo}, {"listen": NOT_HERE, "target": echo}],
            "host": {"exec": True, "user": NOBODY, "files": ["/etc/hostname"]},
        }
    )
    forward = {"agent": box.name, "target": echo}
    made.cluster.configure(
        {
            "forward": [*made.cluster.forwards, {"listen": f"127.0.0.1:{cloud_port}", **forward}],
            "expose": [{"target": echo}],
            "metrics": {"listen": f"127.0.0.1:{metrics_port}"},
        }
    )
    checked = command_result("edge-agent", "check", "--config", str(box.config))
    assert checked.returncode == 0
    assert f"{NOT_HERE}: cannot assign requested address" in checked.stderr
    assert NOBODY in checked.stderr
    server.kill()  # what it leaves behind, its unix socket above all, is taken over
    made.cluster.start()
    box.agent.stop()
    made.restart_box()
    assert works(made.forwards["echo"])
    with made.connect("echo") as sock:
        assert exchange(sock) == b"ping"
    for daemon, part in ((server, f"forward 127.0.0.1:{cloud_port}"), (box.agent, f"listen 127.0.0.1:{box_port}")):
        log = daemon.wait_for_log(f'"part":"{part}"')
        assert "address already in use" in log
    box.agent.wait_for_log("no interface of this machine has it now")
    box.agent.wait_for_log(f'there is no user \\"{NOBODY}\\" on this box')
    page = pages(metrics_port)
    assert f'longline_part_up{{part="forward 127.0.0.1:{cloud_port}"}} 0.0' in page
    assert 'longline_part_up{part="fleet"} 1.0' in page
    assert f"ok\nforward 127.0.0.1:{cloud_port} is down: " in page
    at_box.close()
    at_cloud.close()
    for daemon, port in ((server, cloud_port), (box.agent, box_port)):
        daemon.wait_for_log('"event":"a part is up"', 10)
        assert works(port)
    wait_until(lambda: f'part="forward 127.0.0.1:{cloud_port}"}} 1.0' in pages(metrics_port), "the gauge")
    assert box.agent.stop() == 0  # with a part that is still down
    assert server.stop() == 0


def pages(port: int) -> str:
    text = ""
    for path in ("metrics", "readyz"):
        with urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            text += answer.read().decode()
    return text


def test_the_check_tells_what_could_not_be_opened_and_the_rest_is_good() -> None:
    with cluster() as made, socket.create_server(("127.0.0.1", made.fleet_port)):
        config = made.config
        made.configure({"connect": {"unix": "missing/c.sock"}, "socks": {"listen": NOT_HERE}})
        checked = command_result("cloud-server", "check", "--config", str(config))
    assert checked.returncode == 0
    assert checked.stdout.endswith(f"\n{config}: good\n")
    warnings = checked.stderr.splitlines()
    assert len(warnings) == 3, checked.stderr
    assert warnings[0].startswith(f"{config}: socks.listen: {NOT_HERE}: cannot assign requested address")
    assert warnings[1].startswith(f"{config}: fleet.listen: 127.0.0.1:{made.fleet_port}: somebody else listens there")
    assert warnings[2].startswith(f"{config}: connect.unix: {Path(config).parent}/missing/c.sock: its folder does not")
