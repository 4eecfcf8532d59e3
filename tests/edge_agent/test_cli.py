"""`edge-agent` as it is typed: output, errors and exit codes."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_agent.autonomy.operator.operator_tokens import read_token
from edge_agent.cli import cli
from tests.support.enrolling import Office, office, open_office
from tests.support.pki import Authority
from tests.support.ports import free_ports
from tests.support.processes import BIN, command_result, environment
from tunnel.aio.process.version import VERSION


def typed(*words: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(cli, words, input=stdin)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path / "cloud") as made:
        yield made


async def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """As a real process: the test's own loop is the server's."""

    def wait() -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "edge-agent"), *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment(), timeout=40)

    return await asyncio.to_thread(wait)


async def test_a_box_joins_and_is_told_what_to_type_next(place: Office, tmp_path: Path) -> None:
    token = (await place.token()).encode()
    file, state = tmp_path / "token", tmp_path / "box"
    await asyncio.to_thread(file.write_text, token + "\n")
    first = await run("join", "--server", place.address, "--token-file", str(file), "--state", str(state))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines() == [
        "joined as box-7",
        f"wrote {state}/edge-agent.toml: list there what may be reached, then",
        f"  edge-agent run --config {state}/edge-agent.toml",
    ]
    used = await run("join", "--server", place.address, "--token-file", str(file), "--state", str(state))
    assert (used.returncode, used.stdout) == (1, "")
    refused = f"Error [LL2012]: {place.address} refused: the join token was used already; make another"
    assert used.stderr.startswith(refused)


async def test_a_token_may_come_from_standard_input_and_never_shows(place: Office, tmp_path: Path) -> None:
    token = (await place.token()).encode()
    where = ["--server", place.address, "--token-file", "-", "--state", str(tmp_path / "box")]
    assert (await run("join", *where, stdin=token)).returncode == 0
    again = await run("join", *where, stdin=(await place.token()).encode())
    assert f"kept {tmp_path}/box/edge-agent.toml: see that [cloud] servers names {place.address}" in again.stdout
    assert token[-40:] not in again.stdout + again.stderr


@pytest.mark.parametrize("content", [b"", b"rubbish", b"longline-join-1.AAAA", b"\xff\xfe", b"x" * 100_000])
def test_what_is_no_token(tmp_path: Path, content: bytes) -> None:
    done = typed("join", "--server", "a:1", "--token-file", "-", "--state", str(tmp_path / "box"), stdin=content)
    assert done.exit_code == 1
    assert "token" in done.stderr
    assert len(done.stderr) < 200
    assert not (tmp_path / "box").exists()


@pytest.mark.parametrize(
    ("server", "file", "text"),
    [
        ("cloud.example.com", "-", "is not host:port"),
        ("cloud.example.com:0", "-", "needs a port"),
        ("a:1", "/nonexistent", "No such file or directory"),
    ],
)
def test_slips(tmp_path: Path, server: str, file: str, text: str) -> None:
    done = typed("join", "--server", server, "--token-file", file, "--state", str(tmp_path))
    assert done.exit_code == 2
    assert text in done.stderr


def test_a_server_that_cannot_be_reached(tmp_path: Path) -> None:
    async def make_token() -> str:
        place = await asyncio.to_thread(office, tmp_path / "cloud")
        try:
            return (await place.token()).encode()
        finally:
            await place.store.aclose()

    (tmp_path / "token").write_text(asyncio.run(make_token()))
    done = command_result(
        "edge-agent", "join", "--server", "127.0.0.1:1", "--token-file", str(tmp_path / "token"),
        "--state", str(tmp_path / "box"),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error [LL3002]: 127.0.0.1:1: connection refused: nothing listens there\n"
    assert not (tmp_path / "box").exists()


@pytest.mark.parametrize("command", ["run", "check"])
def test_faults_of_a_configuration_are_all_told_with_exit_code_2(tmp_path: Path, command: str) -> None:
    path = tmp_path / "e.toml"
    path.write_text("[[allow]]\ntarget = 'x'\n[host]\nexek = true\n")
    done = command_result("edge-agent", command, "--config", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[2] for line in done.stderr.splitlines()] == [
        "cloud.servers",
        "allow[0].target",
        "host.exek",
    ]


def test_check_says_when_all_is_well(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text("[cloud]\nservers = ['a:1']\n")
    not_joined = typed("check", "--config", str(path))
    assert (not_joined.exit_code, "run edge-agent join first" in not_joined.stderr) == (1, True)  # as a start says
    Authority().issue(uris=["spiffe://longline/agent/box-7"]).write(tmp_path, "agent")
    done = typed("check", "--config", str(path))
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"{path}: good")


def test_a_box_that_has_not_joined_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text("[cloud]\nservers = ['127.0.0.1:1']\n")
    done = command_result("edge-agent", "run", "--config", str(path))
    assert done.returncode == 1
    assert "run edge-agent join first" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_version() -> None:
    assert typed("--version").stdout == f"edge-agent, version {VERSION}\n"


def test_the_configuration_is_found_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = typed("check")
    assert missing.exit_code == 2
    assert "no /etc/longline/edge-agent.toml and no /var/lib/edge-agent/edge-agent.toml" in missing.stderr
    path = tmp_path / "e.toml"
    path.write_text("[cloud]\nservers = ['cloud.example.com:7443']\n")
    Authority().issue(uris=["spiffe://longline/agent/box-7"]).write(tmp_path, "agent")
    monkeypatch.setenv("LONGLINE_EDGE_AGENT_CONFIG", str(path))
    assert f"{path}: good" in typed("check").stdout


def test_a_node_is_not_led_to_a_proxy_that_is_not_there(tmp_path: Path) -> None:
    config, kubeconfig = tmp_path / "edge-agent.toml", tmp_path / "kubelet.conf"
    text = "clusters:\n- cluster:\n    server: https://a:1\n"
    kubeconfig.write_text(text)
    words = ("--config", str(config), "--kubeconfig", str(kubeconfig))
    config.write_text('[cloud]\nservers = ["a:1"]\n')
    assert f"Error [LL1090]: {config} has no [autonomy]" in typed("autonomy", "enable", *words).output
    (port,) = free_ports(1)
    files = "".join(f'{key} = "x"\n' for key in ("ca", "client_cert", "client_key"))
    config.write_text(f'[cloud]\nservers = ["a:1"]\n[autonomy]\nserver = "a:1"\nlisten = "127.0.0.1:{port}"\n{files}')
    refused = typed("autonomy", "enable", *words)
    assert refused.exit_code == 1
    assert f"the API proxy does not answer at 127.0.0.1:{port} (" in refused.output
    put_back = typed("autonomy", "disable", *words)
    assert (put_back.exit_code, kubeconfig.read_text()) == (0, text)
    assert f"{kubeconfig} does not lead to https://127.0.0.1:{port}" in put_back.output
    assert "there is no /etc/kubernetes" in typed("autonomy", "disable", "--config", str(config)).output


def test_a_kubeconfig_for_the_operator_of_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "edge-agent.toml"
    files = "".join(f'{key} = "x"\n' for key in ("ca", "client_cert", "client_key"))
    config.write_text(f'[cloud]\nservers = ["a:1"]\n[autonomy]\nserver = "a:1"\n{files}')
    words = ("autonomy", "kubeconfig", "--config", str(config))
    assert "has the agent run with [autonomy]?" in typed(*words).output
    (tmp_path / "api-proxy.crt").write_text("certificate")
    monkeypatch.setenv("SUDO_USER", "sam")
    done = typed(*words)
    path = tmp_path / "operator.kubeconfig"
    assert done.output.startswith(f"wrote {path}, for sam, until ")
    assert path.stat().st_mode & 0o777 == 0o600
    content = json.loads(path.read_text())
    assert content["clusters"][0]["cluster"]["server"] == "https://localhost:6440"
    token = content["users"][0]["user"]["token"]
    operator = read_token(tmp_path, token, datetime.now(UTC))
    assert (operator.name, f"token:{operator.token_id}" in done.output) == ("sam", True)
    assert timedelta(hours=11.9) < operator.end - datetime.now(UTC) < timedelta(hours=12.1)
    other = tmp_path / "other"
    done = typed(*words, "--user", "kim", "--hours", "1", "--to", str(other))
    assert done.output.startswith(f"wrote {other}, for kim, until ")
    assert typed(*words, "--hours", "721").exit_code == 2
