"""Typing into a terminal and reading what appears."""

from __future__ import annotations

import pytest

from tests.support.kubectl_choice import OLDEST, find_kubectl, kubectl_version
from tests.support.processes import environment
from tests.support.pty_session import PtySession


def test_a_shell_is_driven() -> None:
    with PtySession(["sh"], env=environment({"PS1": "ready> "}), size=(10, 33)) as shell:
        shell.expect("ready> ")
        shell.type("stty size; tty -s && echo is-a-tty\n")
        shell.expect("10 33")
        shell.expect("\nis-a-tty")
        shell.resize(11, 44)
        shell.type("stty size\n")
        shell.expect("11 44")
        with pytest.raises(AssertionError, match="did not appear"):
            shell.expect("what never comes", 0.2)
        shell.type("exit 3\n")
        assert shell.wait() == 3


def test_a_kubectl_is_found() -> None:
    assert (kubectl_version(find_kubectl()) or (0, 0)) >= OLDEST
