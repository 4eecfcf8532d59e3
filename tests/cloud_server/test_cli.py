"""`cloud-server` as it is typed: output, errors and exit codes."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cloud_server.cli import cli
from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.authenticator import token_digest
from cloud_server.trust.records import USER_TOKENS
from cloud_server.trust.state import open_state
from tests.support.processes import BIN, command_result
from tests.support.state import joined, opened
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.validity import Validity
from tunnel.aio.process.life import Life

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
        f"cloud-server token create --config {tmp_path}/new/cloud-server.toml --agent NAME --out token",
        "edge-agent join --server cloud.example.com:7443 --token-file token --state DIR",
        f"kubectl --kubeconfig {tmp_path}/new/admin.kubeconfig get nodes",
    ):
        assert line in done.stdout


def test_init_shows_an_address_of_ipv6_as_it_is_typed(tmp_path: Path) -> None:
    done = typed("init", "--state", str(tmp_path / "new"), "--host", "fd00::1")
    assert "--server [fd00::1]:7443 " in done.stdout


def test_init_beside_a_configuration_does_not_claim_it(tmp_path: Path) -> None:
    (tmp_path / "cloud-server.toml").write_text("[fleet]\nlisten = '127.0.0.1:7445'\n")
    done = typed("init", "--state", str(tmp_path), "--host", "cloud.example.com")
    first = done.stdout.splitlines()[0]
    assert first == f"made {tmp_path}/admin.kubeconfig; kept {tmp_path}/cloud-server.toml as it was"


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
        (["--user", "ann"], 2, "No such option '--user'"),
        ([], 2, "one of --agent and --agents"),
        (["--agent", "a", "--agents", "b-*", "--count", "2"], 2, "one of --agent and --agents"),
        (["--agents", "lyon-*"], 2, "--agents and --count go together"),
        (["--agent", "lyon", "--count", "2"], 2, "--agents and --count go together"),
        (["--agents", "lyon", "--count", "2"], 2, "is a pattern with a *"),
        (["--agents", "Lyon *", "--count", "2"], 1, "is no pattern of agents' names"),
        (["--agents", "lyon-*", "--count", "1001"], 1, "1 to 1000 boxes"),
        (["--agent", "a", "--label", "site"], 2, "is no label"),
        (["--agent", "a", "--label", "site=a b"], 1, "is no label"),
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
    assert typed("user", "add", "ann", "--config", config, "--group", "ops").exit_code == 0
    token = typed("user", "token", "ann", "--config", config)
    assert (token.exit_code, token.stdout.count("\n")) == (0, 1)
    file = typed("user", "kubeconfig", "ann", "--config", config)
    assert file.stdout.startswith("apiVersion: v1\n")
    for word in ("token", "kubeconfig", "certificate"):
        unknown = typed("user", word, "nan", "--config", config)
        assert (unknown.exit_code, unknown.stderr[:22]) == (1, "Error [LL1047]: there ")
    assert typed("user", "kubeconfig", "ann", "--cluster", "a", "--token", "--config", config).exit_code == 2
    assert typed("user", "add", "a/b", "--config", config).exit_code == 1
    assert typed("user", "add", "bob", "--group", "system:masters", "--config", config).exit_code == 1


def test_users_are_listed_revoked_and_taken_in_again(tmp_path: Path) -> None:
    config = str(tmp_path / "cloud-server.toml")
    assert typed("init", "--state", str(tmp_path), "--host", "a").exit_code == 0
    assert "in ops" in typed("user", "add", "ann", "--group", "ops", "--config", config).stdout
    typed("user", "token", "ann", "--expires", "2d", "--config", config)
    admin, ann = fields("user", "list", "--config", config)
    assert (admin[0], admin[2:4]) == ("admin", ["may as admin", "1 login"])
    assert (ann[:4], ann[5]) == (["ann", "in ops", "may nothing", "1 token"], "never used")
    ends = datetime.now(UTC) + timedelta(days=2)
    assert ann[4][:16] in {f"until {day:%Y-%m-%d}" for day in (ends, ends - timedelta(minutes=5))}
    assert typed("user", "revoke", "ann", "--reason", "left", "--config", config).stdout == "ann is revoked\n"
    (_, ann) = fields("user", "list", "--config", config)
    assert (ann[3][:10], ann[3].partition(": ")[2]) == ("revoked 20", "left")
    refused = typed("user", "token", "ann", "--config", config)
    assert (refused.exit_code, refused.stderr[:16]) == (1, "Error [LL2041]: ")
    assert typed("user", "add", "ann", "--config", config).exit_code == 0
    ((_, groups, roles, access),) = fields("user", "show", "ann", "--config", config)
    assert (groups, roles, access[:13]) == ("in no group", "may nothing", "cannot log in")
    policy = tmp_path / "policy.toml"
    policy.write_text(f'{policy.read_text()}\n[[binding]]\nrole = "viewer"\ngroups = ["ops"]\n')
    typed("user", "add", "ann", "--group", "ops", "--config", config)
    assert fields("user", "show", "ann", "--config", config)[0][2] == "may as viewer"
    policy.write_text("rubbish")
    unknown = typed("user", "show", "ann", "--config", config)
    assert "\troles unknown\t" in unknown.stdout
    assert unknown.stderr.startswith("warning: the roles are not known")
    unknown = typed("user", "revoke", "nan", "--config", config)
    assert "did you mean ann?" in unknown.stderr


def fields(*words: str) -> list[list[str]]:
    return [line.split("\t") for line in typed(*words).stdout.splitlines()]


def test_agents_are_listed_revoked_and_forgotten(state: Path, config: str) -> None:
    ends = datetime(2026, 1, 2, tzinfo=UTC)

    async def join_two() -> None:
        async with opened(state) as store:
            await joined(store, "box-7", KEY)
            await joined(store, "box-8", KEY)
            validity = Validity(ends - timedelta(days=7), ends)
            agents = JoinedAgents(store, pins_unknown=False)
            await agents.certified("box-7", KEY, lambda record: replace(record, validity=validity))

    asyncio.run(join_two())
    seven, eight = fields("agent", "list", "--config", config)
    assert (seven[0], seven[1][:10], *seven[2:]) == (
        "box-7", "joined 202", "certificate expired 2026-01-02 00:00 UTC", "never came"
    )  # fmt: skip
    assert eight[0] == "box-8"
    assert typed("agent", "revoke", "--config", config, "box-8", "--reason", "stolen").stdout == "box-8 is revoked\n"
    (_, revoked) = fields("agent", "list", "--config", config)
    assert (revoked[2][:10], revoked[2].partition(": ")[2]) == ("revoked 20", "stolen")
    assert typed("agent", "forget", "--config", config, "box-7").stdout == "box-7 is forgotten\n"
    for command in ("revoke", "forget"):
        unknown = typed("agent", command, "--config", config, "bxo-8")
        assert (unknown.exit_code, unknown.stderr) == (1, "Error [LL1015]: bxo-8 has not joined, did you mean box-8?\n")
    assert typed("agent", "forget", "--config", config, "box-8").exit_code == 0
    assert typed("agent", "list", "--config", config).stdout == ""
    unknown = typed("agent", "revoke", "--config", config, "box-9")
    assert (unknown.exit_code, unknown.stderr) == (1, "Error [LL1015]: box-9 has not joined\n")


def test_what_is_wrong_with_records_is_not_said_where_a_token_is_expected(tmp_path: Path) -> None:
    config = str(tmp_path / "cloud-server.toml")
    assert typed("init", "--state", str(tmp_path), "--host", "a").exit_code == 0
    for made in (*tmp_path.glob("state.db*"), tmp_path / "agents"):
        made.unlink()
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "box-7.json").write_text("{")  # left by an earlier version
    done = command_result("cloud-server", "token", "create", "--agent", "box-8", "--config", config)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "a record cannot be read" in done.stderr
    (line,) = fields("agent", "list", "--config", config)
    assert (line[0], line[1][:25], line[2]) == ("box-7", "its record cannot be read", "never came")


def test_tokens_are_listed_and_revoked(tmp_path: Path) -> None:
    config = str(tmp_path / "cloud-server.toml")
    assert typed("init", "--state", str(tmp_path), "--host", "a").exit_code == 0
    typed("token", "revoke", "--config", config, "--user", "admin")
    for user in ("ann", "bob"):
        typed("user", "add", user, "--config", config)
    made = [typed("user", "token", user, "--config", config).stdout for user in ("ann", "ann", "bob")]
    assert typed("token", "create", "--config", config, "--agent", "box-7").exit_code == 0
    listed = fields("token", "list", "--config", config)
    assert sorted(line[1] for line in listed) == ["to join as box-7", "token of ann", "token of ann", "token of bob"]
    bob = next(line for line in listed if line[1] == "token of bob")
    assert made[2].strip() not in str(listed)
    assert token_digest(made[2].strip()).startswith(bob[0])
    nobody = typed("token", "revoke", "--config", config, "--user", "x").stderr
    assert nobody == "Error [LL1032]: x has no token\n"
    # The whole of it, as records have it, does as well as what the list shows.
    assert typed("token", "revoke", "--config", config, token_digest(made[2].strip())).stdout == "1 token revoked\n"
    assert typed("token", "revoke", "--config", config, "--user", "ann").stdout == "2 tokens revoked\n"
    (join,) = fields("token", "list", "--config", config)
    assert join[3].startswith("until 20")
    assert typed("token", "revoke", "--config", config, join[0]).exit_code == 0
    for words in ([bob[0]], ["--user", "ann"]):
        assert typed("token", "revoke", "--config", config, *words).stderr.startswith("Error [LL1032]: ")
    assert typed("token", "revoke", "--config", config).exit_code == 2


# Secrets in files


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["token", "create", "--agent", "box-7"], "longline-join-1."),
        (["user", "token", "admin"], ""),
        (["user", "kubeconfig", "admin"], "apiVersion: v1\n"),
        (["user", "certificate", "admin"], "-----BEGIN CERTIFICATE-----\n"),
    ],
)
def test_a_secret_goes_into_a_file_that_only_its_owner_may_read(
    tmp_path: Path, config: str, words: list[str], begins: str
) -> None:
    out = tmp_path / "secret"
    before = os.umask(0)
    try:
        done = typed(*words, "--config", config, "--out", str(out))
    finally:
        os.umask(before)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    first = out.read_text()
    assert first.startswith(begins)
    assert first.endswith("\n")
    refused = typed(*words, "--config", config, "--out", str(out))
    assert (refused.exit_code, out.read_text()) == (1, first)
    assert refused.stderr == f"Error [LL1031]: {out} is there already: take another name, or --force\n"
    out.chmod(0o644)
    assert typed(*words, "--config", config, "--out", str(out), "--force").exit_code == 0
    assert (out.read_text() != first, stat.S_IMODE(out.stat().st_mode)) == (True, 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_file_that_cannot_be_made_costs_no_token(state: Path, tmp_path: Path) -> None:
    config = str(state / "cloud-server.toml")
    before = tokens_of(state)
    for out in (tmp_path / "missing" / "token", tmp_path):
        done = typed("user", "token", "admin", "--config", config, "--out", str(out))
        assert done.exit_code != 0
    assert tokens_of(state) == before
    (tmp_path / "folder").mkdir()
    done = typed("user", "token", "admin", "--config", config, "--out", str(tmp_path / "folder"), "--force")
    assert done.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def tokens_of(state: Path) -> int:
    store = open_state(state)
    try:
        return len(store.list(USER_TOKENS))
    finally:
        store.close()


def test_a_redirection_that_others_can_read_is_warned_of(tmp_path: Path, config: str) -> None:
    for mode, warned in ((0o644, True), (0o600, False)):
        path = tmp_path / f"{mode:o}"
        path.touch()
        path.chmod(mode)
        with path.open("w") as redirected:
            command = [str(BIN / "cloud-server"), "user", "token", "admin", "--config", config]
            done = subprocess.run(command, stdout=redirected, stderr=subprocess.PIPE, text=True, check=True)
        assert ("others can read the file" in done.stderr) is warned


# Where the configuration is


def test_the_configuration_is_found_by_the_environment(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGLINE_CLOUD_SERVER_CONFIG", config)
    assert typed("check").stdout.endswith(f"{config}: good\n")
    assert typed("check", "--config", "/nonexistent.toml").exit_code != 0


def test_without_one_it_says_where_it_looked() -> None:
    done = typed("check")
    places = "no /etc/longline/cloud-server.toml and no /var/lib/cloud-server/cloud-server.toml"
    assert (done.exit_code, f"give --config FILE: there is {places}" in done.stderr) == (2, True)
    told = "".join(typed("check", "--help").stdout.split())
    assert "LONGLINE_CLOUD_SERVER_CONFIG" in told
    assert "/etc/longline/cloud-server.toml,else/var/lib/cloud-server/cloud-server.toml" in told


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
    assert [line.partition(" is good for ")[2] for line in certificates] == ["824 days", "3649 days", "89 days"]


def test_renew_when_nothing_is_due_and_when_it_must_be(state: Path, config: str) -> None:
    before = (state / "server.key").read_bytes()
    assert typed("certificate", "renew", "--config", config).stdout == "nothing is due\n"
    assert typed("certificate", "renew", "--config", config, "--all").stdout == (
        f"renewed {state / 'ca.crt'}\nrenewed {state / 'server.crt'}\n"
    )
    assert (state / "server.key").read_bytes() != before
    (state / "ca.key").unlink()
    assert typed("certificate", "renew", "--config", config).exit_code == 1


def test_a_server_that_cannot_start_says_why_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[tunnel]\nlisten = ['127.0.0.1:0']\n")
    done = command_result("cloud-server", "run", "--config", str(path))
    assert done.returncode == 1
    assert "run cloud-server init" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_version() -> None:
    assert typed("--version").stdout.startswith("cloud-server, version ")
