"""The authority's key belongs to another account than the server: what somebody gets who has taken the server's, and
what goes on as ever. Three real accounts, and a service manager's part played by `SocketUnit`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.support.accounts import as_account, needs_root
from tests.support.cluster import Cluster
from tests.support.ports import free_ports
from tests.support.processes import Daemon, command_result, environment, run_command
from tests.support.socket_unit import SocketUnit
from tests.support.waits import scaled_s
from tunnel.aio.identity.keys import new_key, request_for

pytestmark = [pytest.mark.e2e, needs_root]

SERVER, SIGNER, STRANGER = 61001, 61002, 61003

_INTRUDER = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    asking.settimeout(20)
    asking.connect(sys.argv[1])
    said = asking.makefile("rb")
    answers = [said.readline().decode()]
    for question in json.load(sys.stdin):
        if not answers[-1]:
            break
        asking.sendall(json.dumps(question).encode() + b"\\n")
        answers.append(said.readline().decode())
json.dump(answers, sys.stdout)
"""


class Place:
    """A server and a signer of two accounts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = folder / "kept"
        self.keys, self.socket = folder / "authority", folder / "signer.sock"
        tunnel, connect, fleet = free_ports(3)
        state = folder / "cloud"
        argv = ["cloud-server", "run", "--config", str(state / "cloud-server.toml")]
        server = Daemon("cloud-server", argv, folder / "cloud-server.log", prefix=as_account(SERVER, self.kept))
        Path(server.notify.path).parent.chmod(0o711)
        self.cloud = Cluster(
            folder=folder, host="127.0.0.1", tunnel_port=tunnel, connect_port=connect, fleet_port=fleet, server=server
        )
        for path, uid, mode in ((self.kept, 0, 0o755), (self.keys, SIGNER, 0o755), (state, SERVER, 0o700)):
            path.mkdir()
            path.chmod(mode)
            os.chown(path, uid, uid)
        apart = ["--authority", str(self.keys), "--signer", str(self.socket)]
        run_command("cloud-server", "init", "--state", str(state), "--host", "127.0.0.1", *apart)
        self.cloud.bind()
        self.cloud.configure({"tunnel": {"listen": [f"127.0.0.1:{tunnel}"]}, "fleet": {"listen": f"127.0.0.1:{fleet}"}})
        self.cloud.configure({"connect": {"unix": "connect.sock", "listen": f"127.0.0.1:{connect}"}})
        argv = ["cloud-server", "signer", "--authority", str(self.keys), "--user", str(SERVER)]
        self.unit = SocketUnit(self.socket, argv, folder / "signer.log", prefix=as_account(SIGNER, self.kept))

    def ask(self, uid: int, questions: Sequence[Mapping[str, object]]) -> list[dict[str, str]]:
        """What the signer says to somebody who runs their own program as an account; the greeting comes first."""
        command = [*as_account(uid, self.kept), sys.executable, "-c", _INTRUDER, str(self.socket)]
        done = subprocess.run(
            command,
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            env=environment(),
            timeout=scaled_s(60),
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in json.loads(done.stdout) if line]

    def recorded(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.unit.lines() if line.startswith("{")]

    def close(self) -> None:
        for box in self.cloud.boxes.values():
            box.agent.close()
        self.cloud.server.close()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="longline-"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Place(folder)
        stack.callback(made.close)
        stack.enter_context(made.unit)
        made.cloud.start()
        made.cloud.join("box-7", allow=["127.0.0.1:1"])
        made.cloud.start_box("box-7")
        yield made


def user(**changed: str) -> dict[str, str]:
    return {"ask": "user", "name": "admin", "csr": "", "life_s": "3600", **changed}


def test_the_servers_account_can_read_no_key_and_the_signers_can_write_no_state(place: Place) -> None:
    for uid, path in ((SERVER, place.keys / "ca.key"), (SIGNER, place.folder / "cloud" / "state.db")):
        done = subprocess.run([*as_account(uid, place.kept), "cat", str(path)], capture_output=True, text=True)
        assert (done.returncode, "Permission denied" in done.stderr) == (1, True)
    assert not list((place.folder / "cloud").glob("ca*"))
    assert {path.stat().st_uid for path in place.keys.iterdir()} == {SIGNER}
    children = [child.uids().real for child in place.cloud.server.children()]
    assert children == []  # the server has nobody sign as itself


def test_a_box_joins_renews_and_changes_its_key_by_the_signer(place: Place) -> None:
    config = str(place.cloud.boxes["box-7"].config)
    before = x509.load_pem_x509_certificate((place.cloud.boxes["box-7"].state / "agent.crt").read_bytes())
    run_command("edge-agent", "rotate-key", "--config", config)
    run_command("edge-agent", "renew", "--config", config)
    after = x509.load_pem_x509_certificate((place.cloud.boxes["box-7"].state / "agent.crt").read_bytes())
    assert after.public_key() != before.public_key()
    shown = [(one["shown"].split("/")[0], one["name"]) for one in place.recorded() if one.get("kind") == "agent"]
    assert shown == [("join", "box-7"), ("agent", "box-7"), ("agent", "box-7")]
    (token,) = [one for one in place.recorded() if one.get("kind") == "join"]
    assert (token["uid"], token["name"]) == (0, "box-7")  # the operator's command
    assert {one["uid"] for one in place.recorded() if one.get("kind") == "agent"} == {SERVER}


def test_a_taken_server_gets_no_authority_no_other_name_and_no_long_life(place: Place) -> None:
    authority = (place.keys / "ca.crt").read_bytes()
    asked: list[Mapping[str, object]] = [
        {"ask": "authority"},
        {"ask": "agent", "name": "box-8", "csr": _csr(), "shown": _der(place.cloud.boxes["box-7"].state / "agent.crt")},
        user(csr=_csr(), life_s=str(3650 * 86400)),
        {"ask": "ca.key"},
        {"ask": "join", "token": "0" * 32, "agent": "box-8", "life_s": str(3650 * 86400)},
        *({"ask": "server", "hosts": "bank.example.com"} for _ in range(5)),
    ]
    greeting, *answers = place.ask(SERVER, asked)
    assert greeting == {"trust_domain": "longline"}
    renewed, *denied = answers[:5]
    assert (renewed, (place.keys / "ca.crt").read_bytes()) == ({}, authority)
    assert [one.keys() for one in denied] == [{"denied"}] * 4
    made = [one["certificate"] for one in answers[5:] if "certificate" in one]
    assert 1 <= len(made) <= 4
    for pem in made:
        names = x509.load_pem_x509_certificate(pem.encode()).extensions
        san = names.get_extension_for_class(x509.SubjectAlternativeName).value
        assert san.get_values_for_type(x509.DNSName) == ["localhost"]
    assert "too many certificates" in answers[-1]["denied"]
    told = [one for one in place.recorded() if one["event"] == "denied" and one["uid"] == SERVER]
    assert len(told) == 4 + 5 - len(made)


def test_another_account_is_not_answered(place: Place) -> None:
    assert place.ask(STRANGER, [{"ask": "server"}]) == []
    (told,) = [one for one in place.recorded() if one["event"] == "turned away"]
    assert (told["uid"], told["text"]) == (STRANGER, "this account is not answered here")


def test_lines_without_an_end_and_connections_without_number_are_cut_off(place: Place) -> None:
    program = """
import socket, sys
held = []
for _ in range(12):
    one = socket.socket(socket.AF_UNIX); one.settimeout(20); one.connect(sys.argv[1]); held.append(one)
greeted = sum(bool(one.recv(100)) for one in held)
try:
    held[0].sendall(b"x" * 1_000_000)
    end = held[0].recv(1)
except (BrokenPipeError, ConnectionResetError):
    end = b""
print(greeted, end)
"""
    command = [*as_account(SERVER, place.kept), sys.executable, "-c", program, str(place.socket)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=scaled_s(60))
    greeted, end = done.stdout.split()
    assert 5 <= int(greeted) <= 8, done.stderr  # the server may hold one of them
    assert end == "b''"
    place.cloud.token("box-9")  # root is answered all the while


def test_another_authority_takes_over_and_the_server_follows(place: Place) -> None:
    config = str(place.cloud.boxes["box-7"].config)
    place.cloud.typed("authority", "add")
    run_command("edge-agent", "renew", "--config", config)
    place.cloud.typed("authority", "move")
    run_command("edge-agent", "renew", "--config", config)
    place.cloud.typed("certificate", "renew", "--host", "new.example.com")
    server = x509.load_pem_x509_certificates((place.folder / "cloud" / "server.crt").read_bytes())[0]
    assert server.issuer == x509.load_pem_x509_certificates((place.keys / "ca.crt").read_bytes())[0].subject
    assert (place.folder / "cloud" / "server.key").stat().st_uid == SERVER
    shown = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "new.example.com" in shown.get_values_for_type(x509.DNSName)
    place.cloud.typed("authority", "drop", "--force")
    assert {path.stat().st_uid for path in place.keys.iterdir()} == {SIGNER}
    assert not (place.keys / "ca-beside.key").exists()


def test_a_signer_that_was_killed_is_started_again_and_without_one_it_is_said(place: Place) -> None:
    config = str(place.cloud.boxes["box-7"].config)
    starts, killed = place.unit.starts, place.unit.pid
    place.unit.kill()
    run_command("edge-agent", "renew", "--config", config)
    assert place.unit.starts >= starts + 1
    assert place.unit.pid != killed
    place.socket.rename(place.socket.with_suffix(".away"))
    try:
        place.unit.kill()
        place.unit.wait_ended()
        refused = command_result("cloud-server", "token", "create", "--config", str(place.cloud.config), "--agent", "x")
        assert (refused.returncode, "see cloud-server-signer.socket" in refused.stderr) == (1, True)
        checked = command_result("cloud-server", "check", "--config", str(place.cloud.config))
        assert "LL2008" in checked.stderr
    finally:
        place.socket.with_suffix(".away").rename(place.socket)


def _csr() -> str:
    return base64.b64encode(request_for(new_key())).decode()


def _der(path: Path) -> str:
    return base64.b64encode(ssl.PEM_cert_to_DER_cert(path.read_text())).decode()
