"""cloud-server.toml: the example of the documentation, its defaults, and what does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud_server.config import load_server_config
from tunnel.aio.process.config import ConfigError
from tunnel.core.wire.target import TcpTarget

EXAMPLE = """\
[tunnel]
listen = ["0.0.0.0:7443"]
[connect]
unix = "connect.sock"
listen = "127.0.0.1:7444"
[fleet]
listen = "127.0.0.1:7445"
[[forward]]
listen = "127.0.0.1:2222"
agent = "box-7"
target = "127.0.0.1:22"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "cloud-server.toml"
    path.write_text(text)
    return path


def faults_of(folder: Path, text: str) -> list[str]:
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_server_config(path)
    return [fault.removeprefix(f"{path}:") for fault in caught.value.faults]


def test_the_example(tmp_path: Path) -> None:
    config = load_server_config(written(tmp_path, EXAMPLE))
    assert config.tunnel.listen == ["0.0.0.0:7443"]
    assert config.connect.unix == tmp_path / "connect.sock"
    assert config.connect.listen == "127.0.0.1:7444"
    assert config.fleet.listen == "127.0.0.1:7445"
    (forward,) = config.forward
    assert (forward.listen.port, forward.agent) == (2222, "box-7")
    assert forward.tcp_target == TcpTarget("127.0.0.1", 22)
    assert config.state == tmp_path


def test_defaults(tmp_path: Path) -> None:
    config = load_server_config(written(tmp_path, ""))
    tunnel = config.tunnel
    assert tunnel.listen == ["0.0.0.0:7443"]
    assert [tunnel.suspect_after_s, tunnel.dead_after_s, tunnel.resume_window_s] == [10.0, 15.0, 120.0]
    assert tunnel.pings_per_s == 75.0
    assert [config.drain_s, config.dial_timeout_s] == [30.0, 10.0]
    assert str(tunnel.trust_domain) == "longline"
    assert (config.connect.unix, config.connect.listen, config.fleet.listen, config.forward) == (None, None, None, [])


def test_paths_are_relative_to_the_file_and_not_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    written(tmp_path / "etc", "state = 'var'\n[tunnel]\ncertificate = 'a.crt'\nkey = '../b.key'\nclient_ca = '/c.crt'")
    monkeypatch.chdir(tmp_path)
    config = load_server_config(Path("etc/cloud-server.toml"))
    assert config.state == tmp_path / "etc" / "var"
    assert config.tunnel.certificate == tmp_path / "etc" / "a.crt"
    assert config.tunnel.key is not None
    assert config.tunnel.key.resolve() == tmp_path / "b.key"
    assert config.tunnel.client_ca == Path("/c.crt")


def test_what_does_not_fit_together(tmp_path: Path) -> None:
    text = """\
[tunnel]
listen = []
suspect_after_s = 15
key = "a.key"
trust_domain = "a/b"
[connect]
listen = "127.0.0.1:80"
[fleet]
listen = "127.0.0.1:80"
[[forward]]
listen = "127.0.0.1:80"
agent = "box-7"
target = "a:1"
"""
    assert faults_of(tmp_path, text) == [
        "5: tunnel.trust_domain: 'a/b' is not a trust domain: 1 to 255 of a-z, 0-9, '.', '-' and '_'",
        "9: fleet.listen: 127.0.0.1:80 is taken by connect.listen",
        "11: forward[0].listen: 127.0.0.1:80 is taken by connect.listen",
    ]
    assert faults_of(tmp_path, text.replace("a/b", "ab")) == [
        "1: tunnel: certificate, client_ca is missing: certificate, key and client_ca go together",
        "2: tunnel.listen: must have at least one address",
        "3: tunnel.suspect_after_s: must be less than dead_after_s",
        "9: fleet.listen: 127.0.0.1:80 is taken by connect.listen",
        "11: forward[0].listen: 127.0.0.1:80 is taken by connect.listen",
    ]


def test_forwards_that_lead_nowhere(tmp_path: Path) -> None:
    text = "[[forward]]\nlisten = '127.0.0.1:1'\nagent = 'Box 7'\ntarget = 'a:0'\n[[forward]]\nagent = '-x'\n"
    assert [fault.partition(": ")[2].partition(":")[0] for fault in faults_of(tmp_path, text)] == [
        "forward[0].agent",
        "forward[0].target",
        "forward[1].listen",
        "forward[1].target",
        "forward[1].agent",
    ]


def test_port_0_may_be_listened_on_twice(tmp_path: Path) -> None:
    text = "[connect]\nlisten = '127.0.0.1:0'\n[fleet]\nlisten = '127.0.0.1:0'\n"
    assert load_server_config(written(tmp_path, text)).fleet.listen == "127.0.0.1:0"


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "true", "'150'"])
def test_a_rate_that_is_none(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"2: tunnel\.pings_per_s: must be a number per second, 0\.01 or more, not "):
        load_server_config(written(tmp_path, f"[tunnel]\npings_per_s = {value}"))


def test_an_issuer(tmp_path: Path) -> None:
    text = "[oidc]\nissuer = 'https://id.example.com'\nclient_id = 'longline'\nca_file = 'id.crt'\n"
    settings = load_server_config(written(tmp_path, text)).oidc.settings
    assert settings is not None
    assert (settings.audiences, settings.algorithms) == (("longline",), ("RS256", "ES256"))
    assert (settings.username_prefix, settings.groups_prefix) == ("oidc:", "oidc:")
    assert settings.ca_file == tmp_path / "id.crt"
    assert load_server_config(written(tmp_path, "")).oidc.settings is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("issuer = 'http://id.example.com'\nclient_id = 'a'", "no https:// address"),
        ("issuer = 'https://id.example.com?x=1'\nclient_id = 'a'", "no https:// address"),
        ("issuer = 'https://me@id.example.com'\nclient_id = 'a'", "no https:// address"),
        ("issuer = 'https://id.example.com'", "client_id is missing"),
        ("client_id = 'a'", "issuer is missing"),
        ("issuer = 'https://id.example.com'\nclient_id = 'a'\nalgorithms = ['HS256']", "'HS256' is not taken"),
        ("issuer = 'https://id.example.com'\nclient_id = 'a'\nalgorithms = ['none']", "'none' is not taken"),
        ("issuer = 'https://id.example.com'\nclient_id = 'a'\nalgorithms = []", "at least one"),
        ("issuer = 'https://id.example.com'\nclient_id = 'a'\nleeway_s = 301", "300 at most"),
        ("issuer = 'https://id.example.com'\nclient_id = 'a'\nscopes = ['email']", "must have openid"),
        ("issuer = 'https://id.example.com'\nclient_id = 'a'\ngroups_prefix = 'system:x'", "our own making"),
    ],
)
def test_issuers_that_cannot_be(tmp_path: Path, text: str, says: str) -> None:
    (fault,) = faults_of(tmp_path, f"[oidc]\n{text}\n")
    assert says in fault
