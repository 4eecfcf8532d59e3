"""Remembers for the command's user where the CONNECT listener of each fleet is.

It is kept in `$XDG_CONFIG_HOME/longline/config.toml`, `~/.config/longline/config.toml` without that variable:

    [via]
    "https://cloud.example.com:6443" = "cloud.example.com:7444"
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

from tunnel.core.wire.faults import MEMORY_UNREADABLE, FaultError


class SettingsUnusable(FaultError):
    """The file is there and cannot be used; the text says what to do."""

    default_fault = MEMORY_UNREADABLE


def settings_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns where the file is, whether or not it exists."""
    folder = environment.get("XDG_CONFIG_HOME") or ""
    base = Path(folder) if folder.startswith("/") else Path("~/.config").expanduser()
    return base / "longline" / "config.toml"


def remembered_via(server: str, path: Path | None = None) -> str:
    """Returns HOST:PORT that was used for a fleet, by the URL of its API; "" for none.

    Raises:
        SettingsUnusable: the file cannot be read.
    """
    return _read(path or settings_file()).get(server, "")


def remember_via(server: str, via: str, path: Path | None = None) -> None:
    """Keeps HOST:PORT for a fleet. That it cannot be kept is no reason to fail what was asked for.

    The file has no secret in it, but says where one's servers are: mode 0600.
    """
    path = path or settings_file()
    try:
        known = _read(path)
        if known.get(server) == via:
            return
        known[server] = via
        text = "[via]\n" + "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in known.items())
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # made with mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except (OSError, SettingsUnusable):
        return


# Internal


def _read(path: Path) -> dict[str, str]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsUnusable(f"{path} cannot be read ({error}): mend or remove it") from error
    via = content.get("via", {})
    if not isinstance(via, dict) or not all(isinstance(value, str) for value in via.values()):
        raise SettingsUnusable(f"{path}: [via] must have texts such as {json.dumps('cloud.example.com:7444')}")
    return via
