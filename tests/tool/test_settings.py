"""What is remembered, where, and that a broken file is told of and never overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnel.tool.settings import SettingsUnusable, remember_via, remembered_via, settings_file

FLEET = 'https://cloud "one".example.com:6443'


def test_where_it_is() -> None:
    assert settings_file({"XDG_CONFIG_HOME": "/x"}) == Path("/x/longline/config.toml")
    home = Path("~/.config/longline/config.toml").expanduser()
    assert settings_file({}) == settings_file({"XDG_CONFIG_HOME": "relative"}) == home


def test_each_fleet_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    assert remembered_via(FLEET, path) == ""
    remember_via(FLEET, "a:1", path)
    remember_via("https://other", "b:2", path)
    remember_via(FLEET, "c:3", path)
    assert (remembered_via(FLEET, path), remembered_via("https://other", path)) == ("c:3", "b:2")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("text", ["[via", "via = 1", "[via]\na = 1", "a = " + "[" * 5000])
def test_a_file_that_cannot_be_read_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(SettingsUnusable, match=r"config\.toml"):
        remembered_via(FLEET, path)
    remember_via(FLEET, "a:1", path)
    assert path.read_text() == text


def test_that_it_cannot_be_kept_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remember_via(FLEET, "a:1", tmp_path / "file" / "config.toml")
