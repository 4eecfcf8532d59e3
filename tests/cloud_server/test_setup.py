"""The state folder: made whole or not at all, never over an authority that is there."""

from __future__ import annotations

import base64
import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud_server.config import load_server_config
from cloud_server.issuing import create_join_token
from cloud_server.setup import SetupFailed, fleet_url, init_state
from cloud_server.trust.authenticator import Authenticator
from cloud_server.trust.state import open_state
from cloud_server.trust.users import Users
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.peer_identity import identify_certificate
from tunnel.aio.process.config import ConfigError, HostPort

HOUR = timedelta(hours=1)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "a" / "cloud"
    init_state(folder, ["cloud.example.com", "192.0.2.1"])
    return folder


def test_what_init_makes(state: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir() if not path.is_symlink()}
    assert modes == {
        "admin.kubeconfig": 0o600,
        "ca.crt": 0o644,
        "ca.key": 0o600,
        "cloud-server.toml": 0o644,
        "hosts": 0o644,
        "policy.toml": 0o644,
        "server.crt": 0o644,
        "server.key": 0o600,
        "state.db": 0o600,
    }
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_its_configuration_can_be_used_as_it_is(state: Path) -> None:
    config = load_server_config(state / "cloud-server.toml")
    assert config.tunnel.listen == ["0.0.0.0:7443"]
    assert config.connect.unix == state / "connect.sock"
    assert (config.connect.listen, config.fleet.listen) == ("127.0.0.1:7444", "127.0.0.1:7445")
    assert config.state == state


def test_every_example_in_its_comments_can_be_used(state: Path) -> None:
    path = state / "cloud-server.toml"
    lines = path.read_text().splitlines()
    start = lines.index("# [[forward]]")
    path.write_text("\n".join(lines[:start] + [line.removeprefix("# ") for line in lines[start:]]))
    (forward,) = load_server_config(path).forward
    assert (forward.agent, forward.target) == ("box-7", "127.0.0.1:22")


def test_the_operators_kubeconfig_is_of_the_authority_that_was_made(state: Path) -> None:
    config = yaml.safe_load((state / "admin.kubeconfig").read_text())
    cluster = config["clusters"][0]["cluster"]
    assert cluster["server"] == "https://127.0.0.1:7445"
    assert base64.b64decode(cluster["certificate-authority-data"]) == (state / "ca.crt").read_bytes()
    plugin = config["users"][0]["user"]["exec"]
    assert (Path(plugin["command"]).name, plugin["args"][1:]) == ("longline", ["--server", cluster["server"]])
    store = open_state(state)
    login = Authenticator("longline", Users(store)).by_login(plugin["env"][0]["value"])
    store.close()
    assert login is not None
    assert (login.caller.name, login.token.created_by) == ("admin", "cloud-server init")
    assert login.token.expires is not None
    assert timedelta(days=89) < login.token.expires - datetime.now(UTC) < timedelta(days=90)


def test_an_authority_is_never_replaced(state: Path) -> None:
    before = {path.name: path.read_bytes() for path in state.iterdir() if not path.is_symlink()}
    with pytest.raises(SetupFailed, match="has a certificate authority already"):
        init_state(state, ["other.example.com"])
    assert {path.name: path.read_bytes() for path in state.iterdir() if not path.is_symlink()} == before


def test_a_configuration_that_is_there_stays_and_is_kept_to(tmp_path: Path) -> None:
    (tmp_path / "cloud-server.toml").write_text("[fleet]\nlisten = '0.0.0.0:17445'\n")
    made = init_state(tmp_path, ["cloud.example.com"])
    assert made.config.read_text() == "[fleet]\nlisten = '0.0.0.0:17445'\n"
    assert "https://cloud.example.com:17445" in made.kubeconfig.read_text()


def test_a_configuration_that_is_there_says_where_and_under_what_name(tmp_path: Path) -> None:
    path = tmp_path / "cloud-server.toml"
    path.write_text("state = 'keys'\n[tunnel]\nlisten = ['0.0.0.0:8443']\ntrust_domain = 'acme.example'\n")
    made = init_state(tmp_path, ["2001:db8::1"])
    assert made.server == "[2001:db8::1]:8443"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["admin.kubeconfig", "cloud-server.toml", "keys"]
    keys = tmp_path / "keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    server = x509.load_pem_x509_certificate((keys / "server.crt").read_bytes())
    assert identify_certificate(server.public_bytes(Encoding.DER), "acme.example").role == "server"
    token = JoinToken.decode(create_join_token(path, "box-7", HOUR))
    assert token.ca_pem == (keys / "ca.crt").read_bytes()
    with pytest.raises(SetupFailed, match="keys has a certificate authority already"):
        init_state(tmp_path, ["cloud.example.com"])


def test_with_an_authority_of_ones_own_there_is_nothing_to_make(tmp_path: Path) -> None:
    (tmp_path / "cloud-server.toml").write_text("[tunnel]\ncertificate = 'a'\nkey = 'b'\nclient_ca = 'c'\n")
    with pytest.raises(SetupFailed, match="of your own authority"):
        init_state(tmp_path, ["cloud.example.com"])
    assert [path.name for path in tmp_path.iterdir()] == ["cloud-server.toml"]


def test_a_configuration_that_is_there_and_wrong_stops_it(tmp_path: Path) -> None:
    (tmp_path / "cloud-server.toml").write_text("[fleeet]\n")
    with pytest.raises(ConfigError):
        init_state(tmp_path, ["cloud.example.com"])
    assert [path.name for path in tmp_path.iterdir()] == ["cloud-server.toml"]


@pytest.mark.parametrize("host", ["", "a b", "a:1", "http://a", "-a", "a\nb", "$(id)", "[::1]"])
def test_a_host_that_is_none(tmp_path: Path, host: str) -> None:
    with pytest.raises(SetupFailed, match="neither a DNS name nor an IP address"):
        init_state(tmp_path / "cloud", ["good.example.com", host])
    assert not (tmp_path / "cloud").exists()


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def full(_descriptor: int) -> None:
        written.append(1)
        if len(written) == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupFailed, match="No space left"):
        init_state(tmp_path, ["cloud.example.com"])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    init_state(tmp_path, ["cloud.example.com"])


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:7445", "https://127.0.0.1:7445"),
        ("127.0.0.2:1", "https://127.0.0.2:1"),
        ("localhost:1", "https://localhost:1"),
        ("[::1]:1", "https://[::1]:1"),
        ("0.0.0.0:1", "https://cloud.example.com:1"),
        ("[::]:1", "https://cloud.example.com:1"),
        ("10.0.0.1:1", "https://cloud.example.com:1"),
    ],
)
def test_where_clients_find_the_fleet_api(listen: str, url: str) -> None:
    assert fleet_url(HostPort(listen), "cloud.example.com") == url


def test_an_address_of_ipv6_as_the_first_host() -> None:
    assert fleet_url(HostPort("0.0.0.0:1"), "fd00::1") == "https://[fd00::1]:1"


def test_the_servers_files_are_loaded_by_another_tls(state: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(state / "server.crt", state / "server.key")
