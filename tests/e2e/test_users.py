"""Who may log in, with what, for how long, and what a credential is worth where it was not made for: real processes."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster import Cluster, cluster
from tests.support.kubeconfig_files import client_context
from tests.support.kubectl_user import KubectlUser
from tests.support.ports import free_ports
from tests.support.processes import BIN, command_result
from tests.support.targets import Target

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

BOX = "box-7"
SITE = "site-a"


class User(KubectlUser):
    """Somebody with a kubeconfig, and with a home of their own."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.kubeconfig, self.folder = kubeconfig, folder
        self.folder.mkdir(exist_ok=True)

    @property
    def env(self) -> dict[str, str]:
        """With our programs in PATH, as the plugin is found by name."""
        env = super().env
        return {**env, "PATH": f"{BIN}:{env['PATH']}", "XDG_CACHE_HOME": str(self.folder / "cache")}

    @property
    def kept(self) -> list[Path]:
        """The certificates that are kept for it."""
        return sorted((self.folder / "cache" / "longline" / "certificates").glob("*"))

    def longline(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["longline", *words], env=self.env, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def up() -> Iterator[Cluster]:
    with cluster() as made, Target("echo", "0.0.0.0") as echo:
        (port,) = free_ports(1)
        site = {"name": SITE, "kubeconfig": str(made.folder / "site.yaml"), "agent": BOX}
        made.configure({"connect": {"listen_kubectl": f"127.0.0.1:{port}"}, "cluster": [site]})
        made.bind("contractor", "kas", "lena", "mia", "zoe")  # what they may not is for their credentials
        _site_kubeconfig(made, f"https://127.0.0.2:{echo.port}")
        made.start()
        user = os.environ.get("USER") or "root"
        for name in (BOX, "box-8"):
            made.join(
                name, allow=[f"127.0.0.2:{echo.port}", f"127.0.0.1:{echo.port}"], host={"exec": True, "user": user}
            )
            made.start_box(name)
        yield made


def _site_kubeconfig(made: Cluster, server: str) -> None:
    """What an API server at the site would be reached with there."""
    entry = {"server": server, "certificate-authority": str(made.config.parent / "ca.crt")}
    config = {
        "clusters": [{"name": "k3s", "cluster": entry}],
        "users": [{"name": "cloud", "user": {"token": "of the site"}}],
        "contexts": [{"name": "k3s", "context": {"cluster": "k3s", "user": "cloud"}}],
        "current-context": "k3s",
    }
    (made.folder / "site.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def contractor(up: Cluster) -> str:
    """The token in a kubeconfig that was made for one site."""
    up.typed("user", "add", "contractor")
    made = yaml.safe_load(up.typed("user", "kubeconfig", "contractor", "--cluster", SITE))
    proxy = str(made["clusters"][0]["cluster"]["proxy-url"])
    return proxy.partition("longline:")[2].partition("@")[0]


def fleet(up: Cluster, token: str, method: str, path: str) -> tuple[int, dict[str, Any]]:
    """What the fleet API answers to whoever has a token."""
    tls: ssl.SSLContext = up.operator_tls(certificate=False)
    connection = http.client.HTTPSConnection("127.0.0.1", up.fleet_port, context=tls, timeout=20)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else {"text": text.decode()}
    finally:
        connection.close()


def through(up: Cluster, token: str, target: str, via: str = "any") -> str:
    """The status line of the CONNECT front end's answer."""
    basic = base64.b64encode(f"{via}:{token}".encode()).decode()
    tls = up.operator_tls(certificate=False)
    request = f"CONNECT {target} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", up.connect_port), 20) as raw:
        with tls.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
            sock.sendall(request.encode())
            return sock.recv(4096).decode().partition("\r\n")[0]


def test_a_kubeconfig_for_a_site_is_worth_nothing_elsewhere(up: Cluster, contractor: str) -> None:
    """The attack: its token at the fleet API, to run a command on another box."""
    pod = "/api/v1/namespaces/default/pods/box-8"
    for method, path in (
        ("POST", f"{pod}/exec?command=id&container=host&stdout=1"),
        ("GET", f"{pod}/log?container=host"),
        ("POST", f"{pod}/portforward?ports=22"),
        ("GET", "/api/v1/nodes"),
        ("GET", "/longline/v1/status"),
        ("GET", "/longline/v1/whoami"),
        ("POST", "/longline/v1/user-tokens"),
    ):
        status, answer = fleet(up, contractor, method, path)
        assert (status, answer["details"]["causes"][0]["reason"]) == (403, "LL2044"), path
    status, answer = fleet(up, contractor, "GET", "/version")  # kubectl asks that first, and looks for plain words
    assert (status, "was not made for this" in answer["text"]) == (403, True)
    port = _site_port(up)
    for target, via in ((f"box-8:{port}", "any"), (f"{BOX}:{port}", "any"), ("127.0.0.1:1", f"{BOX}.longline"),
                        (f"127.0.0.2:{port}", "box-8.longline")):  # fmt: skip
        assert through(up, contractor, target, via).startswith("HTTP/1.1 403 LL2044: not allowed by rule scope"), target
    assert through(up, contractor, f"127.0.0.2:{port}", f"{BOX}.longline").split()[1] == "200"
    scope = next(line for line in up.typed("token", "list").splitlines() if "contractor" in line)
    assert f"only for frontends connect; verbs connect; agents {BOX}; targets 127.0.0.2:{port}" in scope


def _site_port(up: Cluster) -> int:
    config = yaml.safe_load((up.folder / "site.yaml").read_text())
    return int(str(config["clusters"][0]["cluster"]["server"]).rpartition(":")[2])


def test_kubectl_logs_in_by_itself(up: Cluster) -> None:
    up.typed("user", "add", "lena", "--group", "ops")
    lena = User(up.login("lena"), up.folder / "lena")
    assert BOX in lena.kubectl("get", "nodes")
    (kept,) = lena.kept
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    before = kept.read_text()
    assert lena.kubectl("exec", BOX, "--", "echo", "hello") == "hello\n"
    assert kept.read_text() == before
    who = lena.kubectl("auth", "whoami", "-o", "json")
    assert "ops" in json.loads(who)["status"]["userInfo"]["groups"]
    # The operator's command takes the same file, and the same certificate.
    done = lena.longline("whoami", "-o", "json")
    assert json.loads(done.stdout)["name"] == "lena", done.stderr
    assert kept.read_text() == before
    assert lena.longline("exec", BOX, "--", "echo", "hi").stdout == "hi\n"
    # With less than a third of its life left, another takes its place.
    kept.write_text(f"0\n{before.partition(chr(10))[2]}")
    assert BOX in lena.kubectl("get", "nodes")
    assert kept.read_text() not in (before, f"0\n{before.partition(chr(10))[2]}")
    shown = up.typed("user", "show", "lena")
    assert shown.count("certificate\t") == 2
    assert "by user:lena" in shown


def test_a_login_opens_nothing_but_certificates(up: Cluster) -> None:
    up.typed("user", "add", "lou")
    config = yaml.safe_load(up.login("lou").read_text())
    login = config["users"][0]["user"]["exec"]["env"][0]["value"]
    for path in ("/api/v1/nodes", "/longline/v1/status", "/longline/v1/certificates"):
        status, answer = fleet(up, login, "GET", path)
        assert (status, answer.get("error", answer).get("code")) in ((401, 401), (405, None)), path
    assert through(up, login, f"{BOX}:80").startswith("HTTP/1.1 407 LL2045: ")
    refused = command_result("longline", "credential", "--server", f"https://127.0.0.1:{up.fleet_port}")
    assert (refused.returncode, "LONGLINE_LOGIN is not set" in refused.stderr) == (1, True)


def test_a_revoked_user_is_nobody_at_once_and_what_they_had_stays_worthless(up: Cluster) -> None:
    admin = User(up.login("admin"), up.folder / "admin")
    assert admin.longline("user", "add", "mia", "--group", "ops").returncode == 0
    assert admin.longline("user", "kubeconfig", "mia", "--out", str(up.folder / "mia.kubeconfig")).returncode == 0
    token = admin.longline("user", "token", "mia", "--expires", "1h").stdout.strip()
    mia = User(up.folder / "mia.kubeconfig", up.folder / "mia")
    assert BOX in mia.kubectl("get", "nodes")
    port = _site_port(up)
    headers = f"Proxy-Authorization: Bearer {token}\r\n"
    with up.dial_tls(f"{BOX}:{port}", headers=headers, certificate=False) as running:
        running.sendall(b"ping")
        assert running.recv(4) == b"ping"
        assert admin.longline("user", "revoke", "mia", "--reason", "left").returncode == 0
        assert running.recv(1) == b""  # as Python's TLS tells of a reset
    up.boxes[BOX].agent.wait_for_log('"code":"LL4314","reason":"standing_lost","text":"mia was revoked at ')
    up.server.wait_for_log('"code":"LL4314","reason":"standing_lost","text":"mia was revoked at ')
    assert through(up, token, f"{BOX}:{port}").startswith("HTTP/1.1 407 LL2041: mia was revoked at ")
    refused = mia.run_kubectl("get", "nodes")
    assert b"mia was revoked" in refused.stderr or b"Unauthorized" in refused.stderr
    assert "LL2041" in mia.longline("whoami").stderr
    up.server.wait_for_log('"event":"login_refused","frontend":"connect","peer":"127.0.0.1","code":"LL2041"')
    assert "revoked" in admin.longline("user", "list").stdout
    up.typed("user", "add", "mia")
    assert through(up, token, f"{BOX}:{port}").startswith("HTTP/1.1 407 LL2042: ")
    assert through(up, up.typed("user", "token", "mia").strip(), f"{BOX}:{port}").split()[1] == "200"


def test_a_certificate_for_a_program_has_the_life_that_was_asked_for(up: Cluster) -> None:
    admin = User(up.login("admin"), up.folder / "admin")
    up.typed("user", "add", "kas")
    made = admin.longline("user", "certificate", "kas", "--expires", "36h")
    assert made.stderr == ""
    pem = made.stdout
    (up.folder / "kas.kubeconfig").write_text(up.with_certificate("kas", pem))
    program = User(up.folder / "kas.kubeconfig", up.folder / "kas")
    assert BOX in program.kubectl("get", "nodes")
    end = subprocess.run(["openssl", "x509", "-noout", "-checkend", str(35 * 3600)], input=pem, text=True)
    later = subprocess.run(["openssl", "x509", "-noout", "-checkend", str(37 * 3600)], input=pem, text=True)
    assert (end.returncode, later.returncode) == (0, 1)
    context = client_context(yaml.safe_load((up.folder / "kas.kubeconfig").read_text()))
    assert context.get_ca_certs()


@pytest.mark.parametrize("words", [("certificate", "admin"), ("token", "admin"), ("kubeconfig", "--token", "admin")])
def test_what_is_made_for_oneself_ends_with_what_was_shown_and_says_so(up: Cluster, words: tuple[str, ...]) -> None:
    admin = User(up.login("admin"), up.folder / f"admin-{words[0]}")
    made = admin.longline("user", *words, "--expires", "36h")
    assert made.returncode == 0
    assert "what you make for yourself ends with what you log in with" in made.stderr


def test_one_token_for_several_boxes_that_choose_their_names(up: Cluster) -> None:
    path = up.folder / "lyon.token"
    path.write_text(up.typed("token", "create", "--agents", "lyon-*", "--count", "2", "--label", "site=lyon"))

    def join(name: str, token: Path = path) -> str:
        state = up.folder / f"joined-{name}"
        where = ["--server", up.tunnel_address, "--token-file", str(token), "--state", str(state)]
        done = command_result("edge-agent", "join", *where, *(["--name", name] if name else []))
        return done.stdout + done.stderr

    assert "joined as lyon-1" in join("lyon-1")
    assert "LL2046" in join("")
    assert "LL2046" in join("paris-1")
    assert "lyon-1 is known already" in join("lyon-1")
    assert "joined as lyon-2" in join("lyon-2")
    assert "LL2012" in join("lyon-3")
    listed = up.typed("agent", "list")
    assert listed.count("site=lyon") == 2
    assert up.typed("agent", "label", "lyon-1", "rack=4", "site-") == "lyon-1 rack=4\n"
    line = next(line for line in up.typed("token", "list").splitlines() if "lyon-*" in line)
    assert "2 of 2 joined" in line
    # A name that is taken away takes its outstanding tokens along.
    path.write_text(up.typed("token", "create", "--agent", "lyon-1"))
    up.typed("agent", "revoke", "lyon-1")
    assert "LL2011" in join("lyon-1")
    path.write_text(up.typed("token", "create", "--agents", "nice-*", "--count", "9"))
    cancelled = next(line for line in up.typed("token", "list").splitlines() if "nice-*" in line).partition("\t")[0]
    assert up.typed("token", "revoke", cancelled) == "1 token revoked\n"
    assert "LL2011" in join("nice-1")


def test_it_is_seen_when_a_credential_was_used_last(up: Cluster) -> None:
    """Runs last: it stops the server, which writes that then."""
    up.typed("user", "add", "zoe")
    token = up.typed("user", "token", "zoe").strip()
    assert "never used" in up.typed("user", "list").partition("zoe")[2]
    assert fleet(up, token, "GET", "/api/v1/nodes")[0] == 200
    up.server.stop()
    assert "used 20" in up.typed("user", "list").partition("zoe")[2].partition("\n")[0]
