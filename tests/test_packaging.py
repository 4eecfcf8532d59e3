from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent.hostkubelet import command_service

PACKAGING = Path(__file__).parent.parent / "packaging"
SYSTEM_UNITS = Path("/usr/lib/systemd/system")
DRAIN_S = 30
UNITS = ("edge-agent", "cloud-server")
HELPERS = {"cloud-server-signer": "cloud-server", "edge-agent-commands": "edge-agent"}
"""Services that a socket starts, and the program that they are."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not SYSTEM_UNITS.is_dir(), reason="systemd is not installed"
)


def _settings(path: Path) -> dict[str, list[str]]:
    """Every `Key=value` of a unit file, in the order of the file."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r"([A-Za-z]+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def _root(tmp_path: Path, unit: str) -> Path:
    """A file system with the unit installed as README says, stubs for its programs, and this system's own units."""
    etc = tmp_path / "etc/systemd/system"
    etc.mkdir(parents=True)
    shutil.copy(PACKAGING / "systemd" / f"{unit}.service", etc)
    program = tmp_path / "opt/longline/bin" / unit
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    shutil.copytree(SYSTEM_UNITS, tmp_path / "usr/lib/systemd/system", symlinks=True)
    return tmp_path


def _faults(root: Path, unit: str) -> list[str]:
    """What `systemd-analyze verify` has against our unit; what it has against the system's own is not ours."""
    command = ["systemd-analyze", "verify", f"--root={root}", "--man=no", "--recursive-errors=no", f"{unit}.service"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    lines = [line for line in done.stderr.splitlines() if unit in line]
    # Restarts that slow down came with systemd 254; older ones say that they do not know them, and go on.
    return [line for line in lines if not re.search(r"Unknown key( name)? '(RestartSteps|RestartMaxDelaySec)'", line)]


@pytest.mark.parametrize("unit", UNITS)
@needs_systemd
def test_systemd_accepts_the_unit(tmp_path: Path, unit: str) -> None:
    assert _faults(_root(tmp_path, unit), unit) == []


@pytest.mark.parametrize("unit", HELPERS)
@needs_systemd
def test_systemd_accepts_a_helper_and_its_socket(tmp_path: Path, unit: str) -> None:
    root = _root(tmp_path, HELPERS[unit])
    for path in (PACKAGING / "systemd").glob(f"{unit}.*"):
        shutil.copy(path, root / "etc/systemd/system")
    for kind in ("socket", "service"):
        command = ["systemd-analyze", "verify", f"--root={root}", "--man=no", "--recursive-errors=no", f"{unit}.{kind}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert [line for line in done.stderr.splitlines() if unit in line] == []


def test_the_signers_parts_fit_together() -> None:
    service = _settings(PACKAGING / "systemd/cloud-server-signer.service")
    socket = _settings(PACKAGING / "systemd/cloud-server-signer.socket")
    (user,), (group,) = service["User"], socket["SocketGroup"]
    lines = {path.stem: path.read_text() for path in (PACKAGING / "sysusers.d").iterdir()}
    assert lines[user].startswith(f"u {user} - ")
    assert lines[group].startswith(f"u {group} - ")
    folder = f"/var/lib/{service['StateDirectory'][0]}"
    command = f"/opt/longline/bin/cloud-server signer --authority {folder} --user {group}"
    assert service["ExecStart"] == [command]
    page = (PACKAGING.parent / "docs/howto/certificates.md").read_text()
    assert f"--authority {folder} --signer {socket['ListenStream'][0]}" in page
    # The kernel would say of every peer that it is nobody.
    assert "PrivateUsers" not in service


SCORES = {"cloud-server": 1.8, "edge-agent": 1.8, "cloud-server-signer": 0.5, "edge-agent-commands": 1.8}
"""The most that `systemd-analyze security` may say of each unit: 0 is locked in, 10 is free."""


def _score(folder: Path, unit: str) -> float:
    """What `systemd-analyze security` says of a unit."""
    path = folder / f"{unit}.service"
    shutil.copy(PACKAGING / "systemd" / path.name, path)
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    return float(found[1])


@pytest.mark.parametrize("unit", SCORES)
@needs_systemd
def test_a_unit_is_locked_in(tmp_path: Path, unit: str) -> None:
    assert _score(tmp_path, unit) <= SCORES[unit]


@needs_systemd
def test_a_fault_in_a_unit_would_be_seen(tmp_path: Path) -> None:
    root = _root(tmp_path, "edge-agent")
    unit = root / "etc/systemd/system/edge-agent.service"
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
    assert any("perhaps" in line for line in _faults(root, "edge-agent"))


def test_systemd_keeps_the_listeners_of_the_server_and_their_files() -> None:
    settings = _settings(PACKAGING / "systemd" / "cloud-server.service")
    assert settings["Environment"] == [f"FDSTORE={settings['FileDescriptorStoreMax'][0]}"]
    assert settings["RuntimeDirectoryPreserve"] == ["restart"]
    assert settings["NotifyAccess"] == ["main"]  # which may hand itself over to another process (MAINPID=)


@pytest.mark.parametrize("unit", UNITS)
def test_unit_waits_for_readiness_and_for_the_drain(unit: str) -> None:
    settings = _settings(PACKAGING / "systemd" / f"{unit}.service")
    assert settings["Type"] == ["notify"]
    assert settings["Restart"] == ["always"]
    assert int(settings["TimeoutStopSec"][0]) > DRAIN_S
    assert settings["User"] == [unit]
    assert settings["StateDirectory"] == [unit]
    assert settings["ExecStart"] == [f"/opt/longline/bin/{unit} run --config /var/lib/{unit}/{unit}.toml"]


@pytest.mark.parametrize("unit", UNITS)
def test_unit_has_its_user(unit: str) -> None:
    line = (PACKAGING / "sysusers.d" / f"{unit}.conf").read_text()
    assert line.startswith(f"u {unit} - ")


def test_the_parts_that_run_commands_fit_together() -> None:
    service = _settings(PACKAGING / "systemd/edge-agent-commands.service")
    socket = _settings(PACKAGING / "systemd/edge-agent-commands.socket")
    (group,) = socket["SocketGroup"]
    assert (PACKAGING / "sysusers.d" / f"{group}.conf").read_text().startswith(f"u {group} - ")
    assert service["ExecStart"] == [f"/opt/longline/bin/edge-agent commands --account root --user {group}"]
    assert command_service.SERVICE == "edge-agent-commands.service"
    assert (PACKAGING / "systemd" / command_service.SLICE).exists()
    assert f'runner = "{socket["ListenStream"][0]}"' in (PACKAGING.parent / "README.md").read_text()
    # The kernel would say of every peer that it is nobody; and a terminal could not be given away.
    assert "PrivateUsers" not in service
    assert {"CAP_SYS_ADMIN", "CAP_CHOWN"} == set(service["CapabilityBoundingSet"][0].split())


@pytest.mark.parametrize("unit", sorted(SCORES))
def test_a_unit_has_a_limit_of_memory(unit: str) -> None:
    assert _settings(PACKAGING / "systemd" / f"{unit}.service")["MemoryMax"]
