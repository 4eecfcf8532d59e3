"""What `edge-agent check` warns of: what a good file names and this box has not got now, and what does nothing."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import pytest

from edge_agent.config import load_agent_config
from edge_agent.outlook import outlook

ME = pwd.getpwuid(os.geteuid()).pw_name


def told(folder: Path, text: str) -> list[str]:
    path = folder / "edge-agent.toml"
    path.write_text(f'[cloud]\nservers = ["192.0.2.1:7443"]\n{text}')
    return list(outlook(load_agent_config(path)))


def test_nothing_where_all_is_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # by the agent itself, as far as anybody knows
        listen = f'[[listen]]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\ntarget = "127.0.0.1:22"\n'
        assert told(tmp_path, f'{listen}[host]\nexec = true\nuser = "{ME}"\n') == []


def test_an_address_and_an_account_that_are_not_there(tmp_path: Path) -> None:
    listen = '[[listen]]\nlisten = "192.0.2.1:80"\ntarget = "127.0.0.1:22"\n'
    address, account = told(tmp_path, f'{listen}[host]\nexec = true\nuser = "no-such-user"\n')
    assert address.startswith("listen[0].listen: 192.0.2.1:80: cannot assign requested address")
    assert account.startswith('host.user: there is no user "no-such-user" on this box')


def test_files_of_a_kubelet(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").touch()
    files = 'client_cert = "a.crt"\nclient_key = "a.key"\nca = "ca.crt"\n'
    assert told(tmp_path, f"[kubelet]\n{files}") == [
        f"kubelet.client_{name}: {tmp_path}/{file}: no such file or directory (it would be down until then)"
        for name, file in (("cert", "a.crt"), ("key", "a.key"))
    ]


def test_a_log_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # and no systemd to ask
    (line,) = told(tmp_path, f'[host]\nunits = ["a.service"]\nfiles = ["{tmp_path}/none.log"]\n')
    assert line == f"host.files: the log file {tmp_path}/none.log does not exist (it would be down until then)"


def test_what_has_no_effect(tmp_path: Path) -> None:
    assert told(tmp_path, '[host]\nshell = "/bin/bash"\n') == [
        "host: nothing is offered: set exec = true, or name units or files",
        "host: user and shell are for commands, and there are none without exec = true",
    ]


def test_files_and_the_address_of_the_nodes_api(tmp_path: Path) -> None:
    here = tmp_path / "here.pem"
    here.write_text("x")
    text = f'[autonomy]\nserver = "a:1"\nlisten = "192.0.2.1:6440"\nca = "{here}"\n'
    listed = told(tmp_path, text + 'client_cert = "none.crt"\nclient_key = "here.pem"')
    assert len(listed) == 2
    assert listed[0].startswith("autonomy.listen: 192.0.2.1:6440: ")
    assert listed[1].startswith(f"autonomy.client_cert: {tmp_path}/none.crt: no such file or directory")
