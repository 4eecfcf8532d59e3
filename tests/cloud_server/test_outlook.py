"""What `cloud-server check` warns of: what a good file names and this machine has not got now."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cloud_server.config import load_server_config
from cloud_server.outlook import outlook, refusals
from cloud_server.setup import init_state
from tests.support.cluster import edit_toml

KUBECONFIG = """apiVersion: v1
kind: Config
current-context: it
contexts: [{name: it, context: {cluster: it, user: it}}]
clusters: [{name: it, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: it, user: {token: x}}]
"""


def told(folder: Path, text: str) -> list[str]:
    path = folder / "cloud-server.toml"
    path.write_text(text)
    return list(outlook(load_server_config(path)))


def test_nothing_where_all_is_there(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    assert (
        told(tmp_path, '[connect]\nunix = "c.sock"\n[kubernetes]\nkubeconfig = "kubeconfig"\n[audit]\nfile = "a.log"\n')
        == []
    )


def test_what_is_not_there(tmp_path: Path) -> None:
    forward = '[[forward]]\nlisten = "192.0.2.1:80"\nagent = "box-7"\ntarget = "127.0.0.1:22"\n'
    audit = '[audit]\nfile = "none/audit.log"\n'
    text = f'[connect]\nunix = "missing/c.sock"\n[kubernetes]\nkubeconfig = "kubeconfig"\n{audit}{forward}'
    address, path, records, kubeconfig = told(tmp_path, text)
    assert records == f"audit.file: {tmp_path}/none/audit.log: its folder does not exist"
    assert address.startswith("forward[0].listen: 192.0.2.1:80: cannot assign requested address")
    assert path == f"connect.unix: {tmp_path}/missing/c.sock: its folder does not exist"
    assert kubeconfig == f"kubernetes.kubeconfig: {tmp_path}/kubeconfig: no such file or directory"


def test_a_kubeconfig_that_cannot_be_used_and_a_port_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text("rubbish: [")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = f'[socks]\nlisten = "127.0.0.1:{port}"\n[kubernetes]\nkubeconfig = "kubeconfig"\n'
        taken, kubeconfig = told(tmp_path, text)
    assert taken == f"socks.listen: 127.0.0.1:{port}: somebody else listens there"
    assert kubeconfig.startswith(f"kubernetes.kubeconfig: {tmp_path}/kubeconfig: ")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda state: None, None),
        (lambda state: (state / "ca.key").unlink(), "LL2007"),
        (lambda state: (state / "server.crt").write_text("rubbish"), "LL2006"),
        (lambda state: (state / "server.key").write_text("rubbish"), None),
        (lambda state: (state / "state.db").write_text("rubbish" * 1000), "LL2024"),
    ],
    ids=["good", "no authority", "no certificate", "no key, which a start makes", "no database"],
)
def test_what_a_start_would_refuse(tmp_path: Path, spoil: Callable[[Path], object], code: str | None) -> None:
    made = init_state(tmp_path / "s", ["127.0.0.1"])
    edit_toml(made.config, {"tunnel": {"listen": ["127.0.0.1:0"]}})
    spoil(tmp_path / "s")
    found = [error.fault.code for error in refusals(load_server_config(made.config))]
    assert found == ([code] if code else [])


def test_no_address_for_agents(tmp_path: Path) -> None:
    made = init_state(tmp_path / "s", ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        edit_toml(made.config, {"tunnel": {"listen": ["192.0.2.1:7443", address]}})
        (error,) = refusals(load_server_config(made.config))
    assert error.fault.code == "LL6002"
    assert f"{address}: somebody else listens there" in error.text
