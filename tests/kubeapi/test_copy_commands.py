"""Copies are told from all other commands, whatever somebody puts into their words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.kubeapi.copy_commands import (
    DOWNLOAD,
    HOME,
    LIST,
    MAKE_FOLDERS,
    PROBE,
    SET_MODES,
    UPLOAD,
    is_copy,
    script_command,
)

SUM = "a" * 64
COPIES = [
    # kubectl cp, of 1.28 to 1.37
    ["tar", "cf", "-", "/var/log/app.log"],
    ["tar", "cf", "-", "some folder"],
    ["sh", "-c", "tar cf - /var/log/app.log | tail -c+0"],
    ["sh", "-c", "tar cf - app-1.2_3.log | tail -c+65537"],
    ["tar", "-xmf", "-"],
    ["tar", "-xmf", "-", "-C", "/tmp"],
    ["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-", "-C", "/tmp"],
    ["test", "-d", "/tmp"],
    # longline cp
    script_command(HOME, []),
    script_command(PROBE, ["-x; id"]),
    script_command(UPLOAD, ["/etc/a b", "/etc/.a.part", "644", "12", SUM]),
    script_command(DOWNLOAD, ["-x", "12"]),
    script_command(LIST, ["/etc"]),
    script_command(MAKE_FOLDERS, ["-m", "777"]),
    script_command(SET_MODES, ["755", "a", "b"]),
]
OTHERS = [
    [],
    ["tar"],
    ["tar", "cf", "-"],
    ["tar", "cf", "-", ""],
    ["tar", "cf", "-", "--to-command=sh"],
    ["tar", "cf", "-", "-I", "sh"],
    ["tar", "cf", "-", "--use-compress-program=sh"],
    ["tar", "cf", "-", "/a", "--checkpoint-action=exec=sh"],
    ["tar", "cf", "/etc/passwd", "/a"],
    ["/tmp/tar", "cf", "-", "/a"],
    ["tar", "-xmf", "-", "--to-command=sh"],
    ["tar", "-xmf", "-", "-C", "/tmp", "--to-command=sh"],
    ["tar", "-xmf", "-", "-C"],
    ["tar", "-xmf", "-", "-C", ""],
    ["tar", "--no-same-owner", "--to-command=sh", "-xmf", "-"],
    ["test", "-f", "/a"],
    ["test", "-d", "/a", "-o", "-f", "/b"],
    ["sh"],
    ["sh", "-c", "id"],
    ["sh", "-c", "tar cf - /a; id | tail -c+0"],
    ["sh", "-c", "tar cf - $(id) | tail -c+0"],
    ["sh", "-c", "tar cf - /a\nid | tail -c+0"],
    ["sh", "-c", "tar cf - --to-command=sh | tail -c+0"],
    ["sh", "-c", "tar cf - -I | tail -c+0"],
    ["sh", "-c", "tar cf - ~root | tail -c+0"],
    ["sh", "-c", "tar cf - /a | tail -c+0; id"],
    ["sh", "-c", "tar cf - /a | tail -c+0\n"],
    ["sh", "-c", "tar cf - /a | tail -c+0", "sh"],
    script_command(PROBE, []),
    script_command(PROBE + "id", ["/a"]),
    script_command(HOME, ["/a"]),
    ["sh", "-c", PROBE, "bash", "/a"],
    ["bash", "-c", PROBE, "sh", "/a"],
    script_command(UPLOAD, ["/a", "--reference=/b", "644", "12", SUM]),
    script_command(UPLOAD, ["/a", "/b", "4755", "12", SUM]),
    script_command(UPLOAD, ["/a", "/b", "u+s", "12", SUM]),
    script_command(UPLOAD, ["/a", "/b", "644", "-1", SUM]),
    script_command(DOWNLOAD, ["/a", "-5"]),
    script_command(DOWNLOAD, ["/a", "5\n"]),
    script_command(MAKE_FOLDERS, []),
    script_command(SET_MODES, ["755", "-R", "/"]),
    script_command(SET_MODES, ["-R", "755", "/"]),
    script_command(SET_MODES, ["755"]),
]


@pytest.mark.parametrize("command", COPIES)
def test_copies(command: list[str]) -> None:
    assert is_copy(command)


@pytest.mark.parametrize("command", OTHERS)
def test_others(command: list[str]) -> None:
    assert not is_copy(command)


@given(
    command=st.sampled_from(COPIES),
    word=st.sampled_from(["--to-command=id", "-I", "--", "id", ""]),
    at=st.integers(0, 8),
)
def test_no_further_option_makes_a_copy(command: list[str], word: str, at: int) -> None:
    changed = [*command[:at], word, *command[at:]]
    if is_copy(changed):
        # Only behind a script is there room for words, each quoted there, and an option's place is not among them.
        assert changed[:2] == ["sh", "-c"]
        assert changed[2] in (MAKE_FOLDERS, SET_MODES)
        assert changed[2] == MAKE_FOLDERS or word == "id"
