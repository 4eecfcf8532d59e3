"""People log in at an issuer with a browser or a device, and kubectl, curl and longline are let in by their groups."""

from __future__ import annotations

import base64
import contextlib
import getpass
import json
import shutil
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ConnectRefused
from tests.support.issuer import CLIENT, TestIssuer, running_issuer
from tests.support.kubectl_user import KubectlUser
from tests.support.pages import HOWTO, blocks
from tests.support.policies import everybody_admin
from tests.support.ports import free_ports
from tests.support.processes import BIN, command_result
from tests.support.targets import HELLO, Target
from tests.support.tunnel import wait_until
from tests.support.waits import scaled_s

pytestmark = pytest.mark.e2e

POLICY = """
[[role]]
name = "ops"
[[role.allow]]
verbs = ["get", "exec", "connect"]
agents = ["box-7"]
targets = ["*"]

[[binding]]
role = "ops"
groups = ["oidc:ops"]
users = ["oidc:short"]
"""
(SOCKS_PORT,) = free_ports(1)

BROWSER = """#!{python}
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="{ca}")
urllib.request.urlopen(sys.argv[1], context=context, timeout=10).read()
"""


@dataclass(kw_only=True)
class Person(KubectlUser):
    """Somebody on a machine of their own."""

    folder: Path
    kubeconfig: Path
    place: Place

    def run(self, *words: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "longline", *words], capture_output=True, text=True, env=self.env, timeout=scaled_s(timeout_s),
            cwd=self.folder,
        )  # fmt: skip

    def login(self, *words: str) -> str:
        """`longline login`, and a browser, which is an HTTP client that follows redirects; returns what is printed."""
        server = ["--server", self.place.url, "--ca", str(self.place.ca)] if not self.kubeconfig.exists() else []
        with subprocess.Popen(
            [BIN / "longline", "login", "--no-browser", *server, *words], env=self.env, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                assert process.stderr is not None
                assert process.stdout is not None
                said = process.stderr.readline()
                assert said.startswith("log in at https://"), said + process.stderr.read()
                browse(self.place.issuer, said.removeprefix("log in at ").strip())
                printed = process.stdout.read() + process.stderr.read()
                assert process.wait(scaled_s(15)) == 0, printed
            finally:
                process.kill()
        return printed


@dataclass(kw_only=True)
class Place:
    cluster: Cluster
    issuer: TestIssuer
    target: Target
    web: Target

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.cluster.fleet_port}"

    @property
    def ca(self) -> Path:
        return self.cluster.config.with_name("ca.crt")

    def connect(self, token: str) -> bytes:
        """What the target at the box answers through CONNECT, for whoever shows a token."""
        target = f"box-7:{self.target.port}"
        header = f"Proxy-Authorization: Bearer {token}\r\n"
        with self.cluster.dial_tls(target, certificate=False, headers=header, glued=b"ping") as sock:
            return sock.recv(4)

    def refusal(self, token: str) -> str:
        with pytest.raises(ConnectRefused) as caught:
            self.connect(token)
        return f"{caught.value.status} {caught.value.reason}"

    def nodes(self, token: str) -> int:
        """The status with which the fleet API answers a list of nodes."""
        request = urllib.request.Request(f"{self.url}/api/v1/nodes", headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(
                request, context=ssl.create_default_context(cafile=self.ca), timeout=10
            ) as page:
                return int(page.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def status(self) -> str:
        socket = str(self.cluster.config.with_name("admin.sock"))
        return command_result("longline", "status", "--socket", socket, "-o", "json").stdout


def browse(issuer: TestIssuer, url: str) -> None:
    context = ssl.create_default_context(cafile=issuer.ca_file)
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(url, context=context, timeout=10) as page:
        assert b"Logged in" in page.read()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("issuer")
    with running_issuer(folder) as issuer, cluster() as made, Target("echo") as target, Target("web") as web:
        made.policy.write_text(everybody_admin() + POLICY)
        oidc = {"issuer": issuer.url, "client_id": CLIENT, "audiences": [CLIENT, "l"], "ca_file": str(issuer.ca_file)}
        made.configure({"oidc": oidc, "socks": {"listen": f"127.0.0.1:{SOCKS_PORT}"}})
        made.start()
        made.join(
            "box-7",
            allow=[f"127.0.0.1:{one.port}" for one in (target, web)],
            host={"exec": True, "user": getpass.getuser()},
        )
        made.start_box("box-7")
        yield Place(cluster=made, issuer=issuer, target=target, web=web)


@pytest.fixture
def issuer(place: Place) -> Iterator[TestIssuer]:
    yield place.issuer
    place.issuer.down = False
    place.issuer.claims = {"sub": "ann", "groups": ["ops"]}
    place.issuer.life_s, place.issuer.pending = 600, 1


@pytest.fixture
def person(place: Place, issuer: TestIssuer, tmp_path: Path) -> Person:
    return Person(folder=tmp_path, kubeconfig=tmp_path / "kubeconfig", place=place)


def test_a_browser_login_serves_kubectl_and_longline(person: Person, place: Place) -> None:
    printed = person.login("--context", "site")
    assert f"logged in as ann; {person.kubeconfig} has the context site" in printed
    assert "box-7" in person.kubectl("get", "nodes")
    assert person.kubectl("exec", "box-7", "--", "echo", "hi") == "hi\n"
    assert "oidc:ann" in person.run("whoami").stdout
    forwarded = subprocess.run(
        [BIN / "longline", "connect", f"box-7:{place.target.port}"], input=b"ping", env=person.env,
        capture_output=True, timeout=scaled_s(15),
    )  # fmt: skip
    assert (forwarded.returncode, forwarded.stdout) == (0, b"ping"), forwarded.stderr
    kept = [path for path in (person.folder / ".config", person.folder / ".cache") for path in path.rglob("*")]
    assert any("logins" in str(path) for path in kept)
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept if path.is_file()} == {0o600}
    token = json.loads(person.run("credential", "--oidc", "--server", place.url).stdout)["status"]["token"]
    assert token.count(".") == 2
    assert token not in person.kubeconfig.read_text()
    audited = place.cluster.server.wait_for_log('"who":"oidc:ann"', 10)
    assert '"proof":"oidc:127.0.0.1:' in audited


def test_an_id_token_is_refreshed_once_for_all_and_a_logout_ends_it(
    person: Person, place: Place, issuer: TestIssuer
) -> None:
    issuer.life_s = 20  # less than is handed out
    person.login()
    issuer.life_s = 600
    before = issuer.asked.count("/token")
    words = [str(BIN / "longline"), "credential", "--oidc", "--server", place.url]
    racing = [subprocess.Popen(words, env=person.env, stdout=subprocess.PIPE) for _ in range(3)]
    answers = {process.communicate(timeout=scaled_s(30))[0] for process in racing}
    assert len(answers) == 1  # the issuer takes each refresh token once
    assert "token" in json.loads(answers.pop())["status"]
    assert issuer.asked.count("/token") == before + 1
    assert issuer.refresh
    done = person.run("logout")
    assert (done.returncode, done.stdout) == (0, f"logged out of {place.url}\n"), done.stderr
    assert "/revoke" in issuer.asked
    after = person.run("ls")
    assert after.returncode == 1
    assert "LL1081" in after.stderr
    assert "Traceback" not in after.stderr
    assert "LL1081" in person.run_kubectl("get", "nodes").stderr.decode()
    person.login()  # the kubeconfig says where
    assert "box-7" in person.run("ls").stdout


def test_a_login_that_the_issuer_ended(person: Person, issuer: TestIssuer) -> None:
    issuer.life_s = 1
    person.login()
    issuer.refresh.clear()
    wait_until(lambda: "Session not active" in (said := person.run("ls").stderr) and "LL1081" in said, "the end", 15)


def test_a_device_login(person: Person, place: Place, issuer: TestIssuer) -> None:
    words = ["login", "--device", "--server", place.url, "--ca", str(place.ca)]
    issuer.pending = -1
    refused = person.run(*words)
    assert refused.returncode == 1
    assert "the person said no" in refused.stderr
    assert "LL1080" in refused.stderr
    issuer.pending = 2
    done = person.run(*words)
    assert done.returncode == 0, done.stderr
    assert f"open {issuer.url}/go on any machine and enter the code WDJB-MJHT" in done.stderr
    assert "box-7" in person.run("ls").stdout


def test_other_contexts_of_the_kubeconfig_stay(person: Person) -> None:
    person.kubeconfig.write_text(place_kubeconfig())
    words = ["--server", person.place.url, "--ca", str(person.place.ca)]
    person.login(*words)
    found = yaml.safe_load(person.kubeconfig.read_text())
    assert [one["name"] for one in found["contexts"]] == ["other", "longline-127.0.0.1"]
    assert found["current-context"] == "longline-127.0.0.1"
    assert found["users"][0] == {"name": "me", "user": {"token": "t"}}
    taken = person.run("login", "--device", *words, "--context", "other")
    assert taken.returncode == 1
    assert "has a cluster other for another server" in taken.stderr
    assert "enter the code" not in taken.stderr


def place_kubeconfig() -> str:
    content: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Config", "current-context": "other",
        "clusters": [{"name": "other", "cluster": {"server": "https://elsewhere.example.com"}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "other", "context": {"cluster": "other", "user": "me"}}],
    }  # fmt: skip
    return yaml.safe_dump(content)


def test_groups_decide(place: Place, issuer: TestIssuer) -> None:
    assert place.nodes(issuer.token()) == 200
    assert place.nodes(issuer.token(groups=["others"])) == 403
    assert place.nodes(issuer.token(sub="admin", groups=[])) == 403
    assert place.connect(issuer.token()) == b"ping"
    assert place.refusal(issuer.token(groups=["others"])).startswith("403 LL4101")
    assert place.refusal(issuer.token(sub="admin", groups=[])).startswith("403 LL4101")  # not our admin
    assert place.refusal(issuer.token(groups=["system:masters"])).startswith("403 LL4101")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_with_a_token_as_the_password(place: Place, issuer: TestIssuer) -> None:
    def curl(token: str) -> subprocess.CompletedProcess[bytes]:
        proxy = f"https://127.0.0.1:{place.cluster.connect_port}"
        config = f'proxy = "{proxy}"\nproxy-user = "ann:{token}"\nproxy-cacert = "{place.ca}"\n'
        config += f'url = "http://box-7:{place.web.port}/"\nproxytunnel\n'
        argv = ["curl", "--silent", "--show-error", "--max-time", "10", "--config", "-"]
        return subprocess.run(argv, input=config.encode(), capture_output=True, timeout=20, check=False)

    refused = curl(issuer.token(groups=[]))
    assert b"403" in refused.stderr
    assert b"407" in curl(issuer.token(aud="another")).stderr
    page = curl(issuer.token())
    assert (page.returncode, page.stdout) == (0, HELLO), page.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_socks_takes_a_token_that_is_short_enough(place: Place, issuer: TestIssuer) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer.more_keys = [ECAlgorithm.to_jwk(key.public_key(), as_dict=True)]
    now = int(time.time())  # noqa: TID251 - tokens go by the wall clock
    claims = {"iss": issuer.url, "aud": "l", "sub": "short", "iat": now, "exp": now + 60}
    head = base64.urlsafe_b64encode(b'{"alg":"ES256"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).rstrip(b"=")
    signature = ECAlgorithm(ECAlgorithm.SHA256).sign(head + b"." + body, key)
    token = b".".join([head, body, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()
    assert len(token) <= 255  # RFC 1929

    def curl(password: str) -> subprocess.CompletedProcess[bytes]:
        config = f'proxy = "socks5h://me:{password}@127.0.0.1:{SOCKS_PORT}"\nurl = "http://box-7:{place.web.port}/"\n'
        argv = ["curl", "--silent", "--show-error", "--max-time", "10", "--config", "-"]
        return subprocess.run(argv, input=config.encode(), capture_output=True, timeout=20, check=False)

    page = curl(token)
    assert (page.returncode, page.stdout) == (0, HELLO), page.stderr
    assert curl(token[:-4] + "AAAA").returncode == 97  # curl: the proxy does not take the credentials


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"aud": "another"}, "LL2060"),
        ({"iss": "https://evil.example.com"}, "LL2060"),
        ({"exp": 1_000_000_000, "iat": 999_999_000}, "LL2043"),
        ({"nbf": 4_000_000_000}, "LL2060"),
    ],
)
def test_tokens_that_are_not_taken(place: Place, issuer: TestIssuer, claims: dict[str, Any], code: str) -> None:
    assert place.refusal(issuer.token(**claims)).startswith(f"407 {code}")
    request = urllib.request.Request(f"{place.url}/api/v1/nodes")
    request.add_header("Authorization", f"Bearer {issuer.token(**claims)}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, context=ssl.create_default_context(cafile=place.ca), timeout=10)
    with caught.value as answer:
        assert answer.code == 401
        assert code in answer.read().decode()


def test_keys_rotate_and_an_issuer_that_is_down_is_told(place: Place, issuer: TestIssuer) -> None:
    old = issuer.token()
    assert place.connect(old) == b"ping"
    issuer.rotate("second")
    assert place.connect(issuer.token()) == b"ping"  # fetched while it waits
    assert place.refusal(old).startswith("407 LL2060")  # its key was withdrawn
    issuer.down = True
    assert place.connect(issuer.token(jti="another")) == b"ping"  # by the keys that are known
    unknown = issuer.keys[0].sign({"sub": "ann"}, kid="third")
    wait_until(lambda: place.refusal(unknown) and "does not say its keys" in place.status(), "the warning", 25)
    assert "LL2061" in place.status()
    place.cluster.server.wait_for_log("LL2061", 5)
    assert place.connect(issuer.token(jti="a third")) == b"ping"


def test_the_howto(person: Person, place: Place, issuer: TestIssuer) -> None:
    """Its commands, in order, in a shell, with addresses of here; the browser is a program that follows redirects."""
    browser = person.folder / "browser"
    browser.write_text(BROWSER.format(python=sys.executable, ca=issuer.ca_file))
    browser.chmod(0o755)
    shutil.copy(place.ca, person.folder / "ca.crt")
    issuer.claims = {"sub": "0b7c1f0e-5a1d-4a5e-9c0a-1f2e3d4c5b6a", "groups": ["ops"]}
    text = "\n".join(blocks(HOWTO / "oidc.md", "sh"))
    for written, here in (
        ("https://cloud.example.com:7445", place.url),
        ("https://cloud.example.com:7444", f"https://127.0.0.1:{place.cluster.connect_port}"),
        ("http://box-7:8080/", f"http://box-7:{place.web.port}/"),
        ("cloud-server user revoke", f"cloud-server user revoke --config {place.cluster.config}"),
    ):
        assert written in text
        text = text.replace(written, here)
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", text], env={**person.env, "BROWSER": f"{browser} %s"}, cwd=person.folder,
        capture_output=True, timeout=scaled_s(30),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"box-7" in done.stdout
    assert b"load average" in done.stdout
    assert HELLO in done.stdout
    assert b"was revoked at" in person.run_kubectl("get", "nodes").stderr


def test_whoever_is_revoked_here_stays_out(place: Place, issuer: TestIssuer) -> None:
    token = issuer.token(sub="bob")
    with place.cluster.dial_tls(
        f"box-7:{place.target.port}", certificate=False, headers=f"Proxy-Authorization: Bearer {token}\r\n"
    ) as sock:
        place.cluster.typed("user", "revoke", "oidc:bob", "--reason", "left")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    assert place.refusal(token).startswith("407 LL2041")
    assert place.connect(issuer.token()) == b"ping"
    place.cluster.typed("user", "add", "oidc:bob")
    wait_until(lambda: place.refusal(token).startswith("407 LL2042"), "the server has seen the command's change")
    assert place.connect(issuer.token(sub="bob", iat=int(time.time()) + 2)) == b"ping"  # noqa: TID251 - as tokens do


def test_a_connection_ends_with_its_token(place: Place, issuer: TestIssuer) -> None:
    issuer.life_s = 3
    header = f"Proxy-Authorization: Bearer {issuer.token()}\r\n"
    seen = len(place.cluster.server.log_text())
    with place.cluster.dial_tls(f"box-7:{place.target.port}", certificate=False, headers=header) as sock:
        sock.sendall(b"ping")
        assert sock.recv(4) == b"ping"
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    place.cluster.server.wait_for_log("LL4315", 5, after=seen)


def test_another_configuration(place: Place, issuer: TestIssuer, person: Person) -> None:
    """The last test: it takes the issuer away."""
    token = issuer.token()
    checked = command_result("cloud-server", "check", "--config", str(place.cluster.config))
    assert "oidc" not in checked.stderr
    with place.cluster.dial_tls(
        f"box-7:{place.target.port}", certificate=False, headers=f"Proxy-Authorization: Bearer {token}\r\n"
    ) as sock:
        place.cluster.configure({"oidc": {"algorithms": ["HS256"]}})
        bad = command_result("cloud-server", "check", "--config", str(place.cluster.config))
        assert "oidc.algorithms" in bad.stderr
        place.cluster.configure({"oidc": None})
        place.cluster.typed("reload")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    assert place.refusal(token).startswith("407 LL2040")
    done = person.run("login", "--server", place.url, "--ca", str(place.ca))
    assert done.returncode == 1
    assert "LL1082" in done.stderr
