"""What `cloud-server check` warns of: what a good file names and this machine has not got now."""

from __future__ import annotations

from pathlib import Path

from cloud_server.config import load_server_config
from cloud_server.outlook import outlook


def told(folder: Path, text: str) -> list[str]:
    path = folder / "cloud-server.toml"
    path.write_text(text)
    return list(outlook(load_server_config(path)))


def test_nothing_where_all_is_there(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").touch()
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
