"""SOCKS5 as a stock client speaks it: curl, with a user's token, by name and by address."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ends_in_reset
from tests.support.ports import free_ports
from tests.support.processes import run_command
from tests.support.tunnel import read_exactly

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

PAGE = b"hello from the box\n"
SOCKS_PORT, WEB_PORT = free_ports(2)


class Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_args: object) -> None:
        pass


@dataclass(frozen=True)
class Site:
    """A box with a web server, and a user of the cloud server before it."""

    cluster: Cluster
    token: str

    def curl(self, host: str, user: str, token: str) -> subprocess.CompletedProcess[bytes]:
        # On standard input: a token is nobody's business who can list processes.
        config = f'proxy = "socks5h://{user}:{token}@127.0.0.1:{SOCKS_PORT}"\nurl = "http://{host}:{WEB_PORT}/"\n'
        argv = ["curl", "--silent", "--show-error", "--max-time", "10", "--config", "-"]
        return subprocess.run(argv, input=config.encode(), capture_output=True, timeout=20, check=False)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with cluster() as made, ThreadingHTTPServer(("127.0.0.1", WEB_PORT), Web) as web:
        serving = Thread(target=web.serve_forever)
        serving.start()
        try:
            made.configure({"socks": {"listen": f"127.0.0.1:{SOCKS_PORT}"}})
            token = made.user_token("ann")
            made.start()
            made.join("box-7", allow=[f"127.0.0.1:{WEB_PORT}"])
            made.start_box("box-7")
            yield Site(made, token.strip())
        finally:
            web.shutdown()
            serving.join()


@pytest.mark.parametrize(
    ("host", "user"),
    [("box-7", "me"), ("127.0.0.1.box-7.longline", "me"), ("127.0.0.1", "box-7.longline")],
)
def test_a_page_of_the_box(site: Site, host: str, user: str) -> None:
    seen = len(site.cluster.server.log_text())
    done = site.curl(host, user, site.token)
    assert (done.returncode, done.stdout) == (0, PAGE), done.stderr
    site.cluster.server.wait_for_log('"frontend":"socks","kind":"user","who":"ann"', 10, after=seen)


def test_nobody_comes_in_without_a_token(site: Site) -> None:
    refused = site.curl("box-7", "me", "wrong")
    assert refused.returncode == 97
    assert b"rejected" in refused.stderr


def test_what_the_box_does_not_allow_is_refused(site: Site) -> None:
    refused = site.curl("127.0.0.2.box-7.longline", "me", site.token)
    assert refused.returncode == 97
    site.cluster.server.wait_for_log('"reason":"not_allowed"', 10)


def test_a_revoked_token_ends_what_runs_on_it(site: Site) -> None:
    config = ["--config", str(site.cluster.config)]
    run_command("cloud-server", "user", "add", "eve", *config)
    token = run_command("cloud-server", "user", "token", "eve", *config).strip().encode()
    with socket.create_connection(("127.0.0.1", SOCKS_PORT), timeout=10) as sock:
        sock.sendall(b"\x05\x01\x02")
        assert read_exactly(sock, 2) == b"\x05\x02"
        sock.sendall(b"\x01\x02me" + bytes([len(token)]) + token)
        assert read_exactly(sock, 2) == b"\x01\x00"
        sock.sendall(b"\x05\x01\x00\x03\x05box-7" + WEB_PORT.to_bytes(2))
        assert read_exactly(sock, 10)[1] == 0
        assert run_command("cloud-server", "token", "revoke", *config, "--user", "eve") == "1 token revoked\n"
        assert ends_in_reset(sock)
    assert site.curl("box-7", "me", token.decode()).returncode == 97
    assert site.curl("box-7", "me", site.token).returncode == 0
