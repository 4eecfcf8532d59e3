"""`cloud-server` as it is typed: output, errors and exit codes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cloud_server.cli import Life, cli
from cloud_server.setup import agent_store
from tests.support.processes import command_result
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.validity import Validity

KEY = b"\x01" * 32


def typed(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cloud")
    done = typed("init", "--state", str(folder), "--host", "cloud.example.com", "--host", "192.0.2.1")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def config(state: Path) -> str:
    return str(state / "cloud-server.toml")


def test_init_says_what_to_type_next(tmp_path: Path) -> None:
    done = typed("init", "--state", str(tmp_path / "new"), "--host", "cloud.example.com")
    for line in (
        f"cloud-server run --config {tmp_path}/new/cloud-server.toml",
        f"cloud-server token create --config {tmp_path}/new/cloud-server.toml --agent NAME",
        "edge-agent join --server cloud.example.com:7443 --token-file token --state DIR",
        f"kubectl --kubeconfig {tmp_path}/new/admin.kubeconfig get nodes",
    ):
        assert line in done.stdout


def test_init_shows_an_address_of_ipv6_as_it_is_typed(tmp_path: Path) -> None:
    done = typed("init", "--state", str(tmp_path / "new"), "--host", "fd00::1")
    assert "--server [fd00::1]:7443 " in done.stdout


def test_init_wants_a_host(tmp_path: Path) -> None:
    assert typed("init", "--state", str(tmp_path)).exit_code == 2


def test_init_refuses_to_run_twice(state: Path) -> None:
    done = typed("init", "--state", str(state), "--host", "a")
    assert done.exit_code == 1
    assert "already" in done.stderr


def test_a_token_is_all_that_stands_on_standard_output(config: str) -> None:
    done = typed("token", "create", "--config", config, "--agent", "box-7", "--expires", "1h")
    assert done.exit_code == 0
    assert done.stdout.count("\n") == 1
    assert JoinToken.decode(done.stdout).agent == "box-7"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--agent", "Box 7"], 1, "cannot name an agent"),
        (["--user", "a/b"], 1, "cannot name a user"),
        ([], 2, "one of --agent and --user"),
        (["--agent", "a", "--user", "b"], 2, "one of --agent and --user"),
        (["--agent", "a", "--expires", "soon"], 2, "is not a time such as 30m"),
        (["--agent", "a", "--expires", "0h"], 2, "is not a time such as 30m"),
        (["--agent", "a", "--expires", "9999999d"], 2, "is not a time such as 30m"),
    ],
)
def test_tokens_that_are_not_made(config: str, words: list[str], code: int, text: str) -> None:
    done = typed("token", "create", "--config", config, *words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr


@pytest.mark.parametrize(
    ("text", "life"),
    [("30s", timedelta(seconds=30)), ("5m", timedelta(minutes=5)), ("1h", timedelta(hours=1)), ("7d", timedelta(7))],
)
def test_lives(text: str, life: timedelta) -> None:
    assert Life().convert(text, None, None) == life


@pytest.mark.parametrize("text", ["", "h", "1", "1w", "-1h", "1.5h", "1h\n", "400d"])
def test_lives_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Life().convert(text, None, None)


def test_a_users_token_and_kubeconfig(config: str) -> None:
    token = typed("token", "create", "--config", config, "--user", "ann")
    assert (token.exit_code, token.stdout.count("\n")) == (0, 1)
    file = typed("kubeconfig", "--config", config, "--user", "ann")
    assert file.stdout.startswith("apiVersion: v1\n")
    assert typed("kubeconfig", "--config", config, "--user", "a/b").exit_code == 1


def test_agents_are_listed_revoked_and_forgotten(state: Path, config: str) -> None:
    store = agent_store(state / "cloud-server.toml")
    store.record("box-7", KEY)
    store.record("box-8", KEY)
    assert [line.split("\t")[0] for line in typed("agent", "list", "--config", config).stdout.splitlines()] == [
        "box-7",
        "box-8",
    ]
    assert typed("agent", "revoke", "--config", config, "box-8").stdout == "box-8 is revoked\n"
    ends = datetime(2026, 1, 2, tzinfo=UTC)
    store.certified("box-7", Validity(ends - timedelta(days=7), ends))
    listed = typed("agent", "list", "--config", config).stdout
    assert listed.startswith("box-7\tjoined 20")
    assert listed.endswith("\tcertificate expired 2026-01-02 00:00 UTC\n")
    assert typed("agent", "forget", "--config", config, "box-7").stdout == "box-7 is forgotten\n"
    assert typed("agent", "list", "--config", config).stdout == ""
    for command in ("revoke", "forget"):
        unknown = typed("agent", command, "--config", config, "box-9")
        assert (unknown.exit_code, unknown.stderr) == (1, "Error [LL1015]: box-9 has not joined\n")


@pytest.mark.parametrize("command", [["check"], ["token", "create", "--agent", "a"], ["agent", "list"], ["run"]])
def test_faults_of_a_configuration_are_all_told_with_exit_code_2(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[tunnel]\nlisten = ['x']\n[fleeet]\n")
    done = command_result("cloud-server", *command, "--config", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"Error [LL1004]: {path}:2: tunnel.listen[0]: ")
    assert second.startswith(f"Error [LL1004]: {path}:3: fleeet: is not known, did you mean fleet?")


def test_check_says_when_all_is_well(config: str) -> None:
    *certificates, last = typed("check", "--config", config).stdout.splitlines()
    assert last == f"{config}: good"
    assert [line.partition(" is good for ")[2] for line in certificates] == ["824 days", "3649 days", "364 days"]


def test_renew_when_nothing_is_due_and_when_it_must_be(state: Path, config: str) -> None:
    before = (state / "server.key").read_bytes()
    assert typed("renew", "--config", config).stdout == "nothing is due\n"
    assert typed("renew", "--config", config, "--all").stdout == (
        f"renewed {state / 'ca.crt'}\nrenewed {state / 'server.crt'}\n"
    )
    assert (state / "server.key").read_bytes() != before
    (state / "ca.key").unlink()
    assert typed("renew", "--config", config).exit_code == 1


def test_a_server_that_cannot_start_says_why_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[tunnel]\nlisten = ['127.0.0.1:0']\n")
    done = command_result("cloud-server", "run", "--config", str(path))
    assert done.returncode == 1
    assert "run cloud-server init" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_version() -> None:
    assert typed("--version").stdout.startswith("cloud-server, version ")
