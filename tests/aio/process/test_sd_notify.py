"""Datagrams to systemd, over real sockets."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from tunnel.aio.process.sd_notify import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_state_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    path = str(tmp_path / "notify")
    name = f"@{path}" if abstract else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{path}" if abstract else path)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1")
        assert receiver.recv(100) == b"READY=1"


def test_nothing_happens_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_a_socket_that_is_gone_does_not_stop_the_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")


def test_a_full_queue_is_waited_for_by_nobody_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(5)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others:
            others.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    others.sendto(b"STATUS=busy", path)
        notify("READY=1")
        while (state := receiver.recv(100)) == b"STATUS=busy":
            pass
        assert state == b"READY=1"
