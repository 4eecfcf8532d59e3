"""edge-agent.toml: the example of the documentation, its defaults, and what does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import load_agent_config, named_targets
from tunnel.aio.process.config import ConfigError
from tunnel.core.wire.audience import EVERYBODY, Audience
from tunnel.core.wire.target import TcpTarget

EXAMPLE = """\
[cloud]
servers = ["cloud.example.com:7443"]
[[allow]]
target = "127.0.0.1:22"
[[allow]]
target = "10.1.0.0/16:80,443"
[host]
exec = true
user = "root"
units = ["nginx.service"]
files = ["/var/log/app.log"]
"""
CLOUD = "[cloud]\nservers = ['a:1']\n"

LABEL_RULE = "1 to 63 of letters, digits, '-', '_' and '.', not at the ends"


def written(folder: Path, text: str) -> Path:
    path = folder / "edge-agent.toml"
    path.write_text(text)
    return path


def faults_of(folder: Path, text: str) -> list[str]:
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_agent_config(path)
    return [fault.removeprefix(f"{path}:") for fault in caught.value.faults]


def test_the_example(tmp_path: Path) -> None:
    config = load_agent_config(written(tmp_path, EXAMPLE))
    assert config.cloud.servers == ["cloud.example.com:7443"]
    assert [allow.rule.text for allow in config.allow] == ["127.0.0.1:22", "10.1.0.0/16:80,443"]
    assert config.host.settings(None).exec
    assert config.host.settings(None).units == ["nginx.service"]
    assert config.host.settings(None).files == [Path("/var/log/app.log")]
    assert config.state == tmp_path


def test_by_default_nothing_is_reachable(tmp_path: Path) -> None:
    config = load_agent_config(written(tmp_path, CLOUD))
    assert config.allow == []
    assert not config.host.offered
    assert config.kubelet is None


def test_without_a_server_there_is_nothing_to_do(tmp_path: Path) -> None:
    expected = ["1: cloud.servers: must name at least one host:port to dial"]
    assert faults_of(tmp_path, "") == expected
    assert faults_of(tmp_path, "[cloud]") == expected
    assert faults_of(tmp_path, "cloud.servers = []") == expected


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = """\
[cloud]
servers = ["a:0", "b"]
[[allow]]
target = "10.1.0.1/16:80"
[[allow]]
target = "1.2.3.4"
[[allow]]
names = "kubelet"
[host]
units = ["nginx", "a*.service"]
[labels]
site = "a b"
"-x" = "y"
[log]
level = "loud"
"""
    assert faults_of(tmp_path, text) == [
        "2: cloud.servers[0]: 'a:0' needs a port of 1 to 65535",
        "2: cloud.servers[1]: 'b' is not host:port, such as cloud.example.com:7443 or [2001:db8::1]:7443",
        "4: allow[0].target: 10.1.0.1/16 has bits set behind its prefix; did you mean 10.1.0.0/16?",
        "6: allow[1].target: '1.2.3.4' has no port; write host:ports, such as 127.0.0.1:22 or 10.1.0.0/16:80,443",
        "7: allow[2].target: is missing",
        "8: allow[2].names: is not known; allowed: target, service, users, groups",
        '9: host: units: "nginx" is not the name of a systemd unit such as "nginx.service"',
        '9: host: units: "a*.service" is not the name of a systemd unit such as "nginx.service"',
        f"11: labels: '-x' cannot name a label: {LABEL_RULE}",
        f"12: labels.site: 'a b' cannot be a label's value: empty, or {LABEL_RULE}",
        "15: log.level: must be one of debug, info, warning, error",
    ]


def test_one_kubelet_is_shown(tmp_path: Path) -> None:
    kubelet = "[kubelet]\nclient_cert = 'a.crt'\nclient_key = 'a.key'\nca = 'ca.crt'\n"
    config = load_agent_config(written(tmp_path, CLOUD + kubelet))
    assert config.kubelet is not None
    assert (config.kubelet.address, config.kubelet.ca) == ("127.0.0.1:10250", tmp_path / "ca.crt")
    assert faults_of(tmp_path, f"{CLOUD}{kubelet}[host]\nexec = true\n") == [
        "3: kubelet: goes without [host]: the box shows one kubelet, a real one or the built-in one"
    ]
    assert [fault.split(" ")[1] for fault in faults_of(tmp_path, f"{CLOUD}[kubelet]\n")] == [
        "kubelet.client_cert:",
        "kubelet.client_key:",
        "kubelet.ca:",
    ]


def test_a_proxy_and_its_password(tmp_path: Path) -> None:
    config = load_agent_config(written(tmp_path, f"{CLOUD}proxy = 'http://ann:s3cret@proxy:3128'"))
    assert config.cloud.proxy == "http://ann:s3cret@proxy:3128"
    assert "s3cret" not in repr(config)
    (fault,) = faults_of(tmp_path, f"{CLOUD}proxy = 'https://ann:s3cret@proxy:3128'")
    assert fault.startswith("3: cloud.proxy: ")
    assert "s3cret" not in fault


def test_for_how_long_a_kubelet_without_a_certificate_is_believed(tmp_path: Path) -> None:
    section = "[autonomy]\nserver = 'a:1'\nca = 'a'\nclient_cert = 'a'\nclient_key = 'a'\n"
    for text, found in (("", 30 * 86400.0), ("certificate_grace_s = 0", 0.0), ("certificate_grace_s = 60", 60.0)):
        loaded = load_agent_config(written(tmp_path, f"{CLOUD}{section}{text}")).autonomy
        assert loaded is not None
        assert loaded.certificate_grace_s == found
    for text in ("-1", "true", "'a'", "1e9"):
        (fault,) = faults_of(tmp_path, f"{CLOUD}{section}certificate_grace_s = {text}")
        assert "must be a number of seconds, 0 or more" in fault


def test_labels(tmp_path: Path) -> None:
    config = load_agent_config(written(tmp_path, f"{CLOUD}[labels]\nsite = 'north'\nspare = ''\n"))
    assert config.labels == {"site": "north", "spare": ""}


def test_more_labels_than_a_node_shows(tmp_path: Path) -> None:
    labels = "".join(f"l{number} = 'x'\n" for number in range(65))
    (fault,) = faults_of(tmp_path, f"{CLOUD}[labels]\n{labels}")
    assert fault.endswith("labels: 65 are too many: a node shows 64")


def test_services(tmp_path: Path) -> None:
    config = load_agent_config(
        written(
            tmp_path,
            CLOUD + "[[allow]]\ntarget = '10.1.0.9:631'\nservice = 'printer'\n[[allow]]\ntarget = '127.0.0.1:22'\n",
        )
    )
    assert named_targets(config) == {"printer": TcpTarget("10.1.0.9", 631)}


@pytest.mark.parametrize(
    ("target", "service", "says"),
    [
        ("10.1.0.0/16:631", "printer", "needs a target of one host and one port"),
        ("10.1.0.9:1-9", "printer", "needs a target of one host and one port"),
        ("10.1.0.9:631", "631", "cannot name a service"),
        ("10.1.0.9:631", "Printer", "cannot name a service"),
        ("10.1.0.9:631", "kubelet", "is taken"),
    ],
)
def test_names_that_no_service_can_have(tmp_path: Path, target: str, service: str, says: str) -> None:
    (fault,) = faults_of(tmp_path, CLOUD + f"[[allow]]\ntarget = '{target}'\nservice = '{service}'\n")
    assert fault.startswith("5: allow[0].service: ")
    assert says in fault


EXEC = """
[[host.exec]]
users = ["ann", "con-*"]
groups = ["ops"]
account = "deploy"
commands = ["systemctl restart nginx", "journalctl -u nginx *"]

[[host.exec]]
account = "nobody"
"""


def test_who_may_use_a_rule_and_run_what(tmp_path: Path) -> None:
    allow = (
        "[[allow]]\ntarget = '127.0.0.1:22'\nusers = ['ann']\ngroups = ['ops']\n[[allow]]\ntarget = '127.0.0.1:80'\n"
    )
    config = load_agent_config(written(tmp_path, CLOUD + allow + EXEC))
    assert [one.rule.audience for one in config.allow] == [Audience(("ann",), ("ops",)), EVERYBODY]
    assert config.host.offered
    settings = config.host.settings(config.state)
    first, second = settings.rules
    assert (first.account, first.audience) == ("deploy", Audience(("ann", "con-*"), ("ops",)))
    assert [pattern.text for pattern in first.commands] == ["systemctl restart nginx", "journalctl -u nginx *"]
    assert (second.account, second.audience, second.commands) == ("nobody", EVERYBODY, ())
    assert settings.exec_rules.accounts == ["deploy", "nobody"]
    assert settings.recording.folder == tmp_path / "recordings"
    simple = load_agent_config(written(tmp_path, CLOUD + "[host]\nexec = true\nuser = 'deploy'\n"))
    assert simple.host.settings(None).exec_rules.accounts == ["deploy"]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("[host]\nuser = 'deploy'\n[[host.exec]]\naccount = 'a'\n",
         ["4: host.user: goes without [[host.exec]]: each of those names its own account"]),
        ("[[host.exec]]\nusers = ['a b', '']\n",
         ["3: host.exec[0].account: is missing",
          "4: host.exec[0].users[0]: 'a b' is no name or pattern: 253 characters, no blanks or brackets",
          "4: host.exec[0].users[1]: must be a string that is not empty, not ''"]),
        ("[[host.exec]]\naccount = 'a,b'\ncommands = ['* x', 3]\n",
         ['4: host.exec[0].account: must be the name of an account of this box, such as "deploy"',
          "5: host.exec[0].commands[0]: '* x' must name its program exactly, without * or ?",
          '5: host.exec[0].commands[1]: must be a command line such as "systemctl restart nginx"']),
        ("[host]\nexec = 'yes'\n", ["4: host.exec: must be a list, not 'yes'"]),
        ("[host.recording]\nmode = 'all'\n", ["4: host.recording.mode: must be one of off, policy, always"]),
        ("[host.recording]\nmax_file_bytes = 100\nmax_total_bytes = 1\n",
         ["4: host.recording.max_file_bytes: must be 65536 or more",
          "5: host.recording.max_total_bytes: must be no less than max_file_bytes"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_rules_for_commands(tmp_path: Path, text: str, faults: list[str]) -> None:
    assert faults_of(tmp_path, CLOUD + text) == faults
