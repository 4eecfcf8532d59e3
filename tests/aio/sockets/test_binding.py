"""Why an address or a path cannot be listened on, in words. Taking a path is tested with the listener."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from tunnel.aio.sockets.binding import address_fault, in_use, path_fault, reason_of


@pytest.mark.parametrize(
    ("number", "path", "text"),
    [
        (errno.EADDRINUSE, False, "address already in use"),
        (errno.EACCES, False, "permission denied: ports below 1024 need root or CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, False, "cannot assign requested address: no interface of this machine has it now"),
        (errno.EACCES, True, "permission denied: who runs this may not write to its folder"),
        (errno.ENOENT, True, "no such file or directory: its folder does not exist"),
    ],
)
def test_the_systems_words_and_what_they_mean(number: int, path: bool, text: str) -> None:
    assert reason_of(OSError(number, "(whatever) the event loop says"), path=path) == text


def test_an_address_that_this_machine_has_or_not() -> None:
    assert address_fault("127.0.0.1:1") == ""
    assert address_fault(":443") == ""
    assert "no interface of this machine has it" in address_fault("192.0.2.1:8080")
    assert address_fault("name.invalid:1")


def test_a_port_in_use_is_no_fault_of_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert address_fault(f"127.0.0.1:{taken.getsockname()[1]}") == ""


def test_a_folder_for_the_path(tmp_path: Path) -> None:
    assert path_fault(tmp_path / "c.sock") == ""
    assert path_fault(tmp_path / "missing" / "c.sock") == "its folder does not exist"


@pytest.mark.parametrize("reuse", [0, 1])
def test_a_port_that_somebody_listens_on_is_in_use_whether_he_shares_it_or_not(reuse: int) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert in_use(f"127.0.0.1:{port}")
        assert in_use(f"0.0.0.0:{port}")
        assert in_use(f":{port}")
        assert not in_use(f"127.0.0.2:{port}")
    assert not in_use(f"127.0.0.1:{port}")
    assert not in_use("127.0.0.1:0")
    assert not in_use("name.invalid:1")
