"""Descriptors of a service manager, as sd_listen_fds(3) hands them: by number, for one process, with names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tunnel.aio.process.handed import descriptor_name, take_listen_fds

SAYS = """
import os, sys
from tunnel.aio.process.handed import take_listen_fds
os.environ["LISTEN_PID"] = str(os.getpid())
taken = take_listen_fds(os.environ)
left = [name for name in os.environ if name.startswith("LISTEN_")]
print([(one.name, one.descriptor, os.get_inheritable(one.descriptor)) for one in taken], left)
"""


def test_sockets_by_name_for_no_child() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, Path(os.devnull).open() as no_socket:
        actions = [
            (os.POSIX_SPAWN_DUP2, one.fileno(), 100),
            (os.POSIX_SPAWN_DUP2, no_socket.fileno(), 101),
            (os.POSIX_SPAWN_DUP2, 100, 3),
            (os.POSIX_SPAWN_DUP2, 101, 4),
            (os.POSIX_SPAWN_DUP2, 100, 5),
        ]
        read, write = os.pipe()
        environment = {**os.environ, "LISTEN_FDS": "4", "LISTEN_FDNAMES": "socks:file:forward 127.0.0.1_80"}
        actions.append((os.POSIX_SPAWN_DUP2, write, 1))
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", SAYS], environment, file_actions=actions)
        os.close(write)
        os.waitpid(pid, 0)
        with os.fdopen(read, "rb") as output:
            said = output.read().decode().strip()
    # 4 is no socket, and 6 is not there.
    assert said == "[('socks', 3, False), ('forward 127.0.0.1_80', 5, False)] []"


@pytest.mark.parametrize("pid", ["", "1", "x"])
def test_what_is_meant_for_another_process_is_left_alone(pid: str) -> None:
    environ = {"LISTEN_PID": pid, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "socks"}
    assert take_listen_fds(environ) == []
    assert environ == {}


@pytest.mark.parametrize("count", ["", "-1", "many"])
def test_no_number_of_descriptors_is_none(count: str) -> None:
    assert take_listen_fds({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}) == []


def test_names_that_systemd_takes() -> None:
    assert descriptor_name("forward [::1]:80") == "forward [__1]_80"
    assert descriptor_name("é\n" + "x" * 300) == "__" + "x" * 253


def test_a_process_without_any() -> None:
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
