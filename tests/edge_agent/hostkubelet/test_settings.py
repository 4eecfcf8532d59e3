"""What the `[host]` section may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.hostkubelet.settings import HostSettings, SettingsError


@pytest.mark.parametrize(
    "unit", ["nginx.service", "app@1.service", r"dev-disk-by\x2dlabel.mount", "a_b:c.timer", "getty@tty1.service"]
)
def test_units_with_their_full_name(unit: str) -> None:
    HostSettings(units=[unit]).check()


@pytest.mark.parametrize(
    "unit",
    [
        "nginx",
        "*.service",
        "ngin?.service",
        "[ab].service",
        "--flush.service",
        "-M.service",
        "",
        "a b.service",
        "/etc/passwd",
        "x.service\n",
        "a@b@c.service",
        "x" * 300 + ".service",
    ],
)
def test_anything_but_one_unit_is_refused(unit: str) -> None:
    with pytest.raises(SettingsError, match="is not the name of a systemd unit such as"):
        HostSettings(units=[unit]).check()


def test_files_must_be_absolute() -> None:
    HostSettings(files=[Path("/var/log/app.log")]).check()
    with pytest.raises(SettingsError, match=r'"app.log" must be an absolute path'):
        HostSettings(files=[Path("app.log")]).check()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (HostSettings(units=["getty@.service"]), 'is a template: name an instance of it such as "getty@1.service"'),
        (HostSettings(files=[Path("/var/log/*.log")]), "is a pattern: name each file"),
        (HostSettings(files=[Path("/")]), "is a folder: name a file"),
        (HostSettings(files=[Path("/var/log/a\0b")]), "has characters that cannot be shown"),
        (HostSettings(files=[Path("/var/log/a\nb")]), "has characters that cannot be shown"),
    ],
)
def test_what_could_never_be_read_is_refused(settings: HostSettings, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        settings.check()


def test_a_space_is_no_reason() -> None:
    HostSettings(files=[Path("/var/log/sp ace.log"), Path("/var/log/größe.log")]).check()
