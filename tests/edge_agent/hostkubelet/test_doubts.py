"""What `check` warns of."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.hostkubelet.doubts import doubts
from edge_agent.hostkubelet.settings import HostSettings


def test_what_is_missing_is_told_and_what_is_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\nprintf 'LoadState=not-found\\nActiveState=inactive\\n'\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "there.log").touch()
    settings = HostSettings(
        exec=True, user="no-such-user", units=["a.service"], files=[tmp_path / "there.log", tmp_path / "none.log"]
    )
    account, unit, file = doubts(settings)
    assert account.startswith('user: there is no user "no-such-user" on this box')
    assert unit == "units: a.service: systemd knows no such unit on this box"
    assert file == f"files: the log file {tmp_path}/none.log does not exist"


def test_without_systemd_units_are_not_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert doubts(HostSettings(units=["a.service"])) == []
