"""An sshd of our own on a free port with throwaway keys, to run a command beside `kubectl exec`."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benches.peers.process import PeerFailed, process, wait_listening
from tests.support.ports import free_ports

CONFIG = """ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
SetEnv SHLVL=1
"""
"""By its last line bash takes itself for nested: else it reads the user's .bashrc, which is not what is measured."""

SEPARATION = Path("/run/sshd")


@contextmanager
def ssh_command() -> Iterator[list[str] | None]:
    """What to put before the words of a command that sshd runs here; None, with a message, where there is no sshd."""
    # sshd starts itself again for each connection, and asks for its whole path.
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if sshd is None or shutil.which("ssh") is None:
        print("ssh is left out: sshd is not installed")
        yield None
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="longline-bench-")))
        (port,) = free_ports(1)
        for key in ("host", "user"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(words, check=True, capture_output=True)
        stack.enter_context(_privilege_separation())
        (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
        try:
            stack.enter_context(_serving([sshd, "-D", "-e", "-f", str(folder / "config")], folder, port))
        except PeerFailed as error:
            print("ssh is left out:", *error.__notes__)
            yield None
            return
        options = ("BatchMode=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={os.devnull}", "LogLevel=ERROR")
        words = ["ssh", "-F", os.devnull, "-i", str(folder / "user"), "-p", str(port)]
        words += [word for option in options for word in ("-o", option)]
        yield [*words, f"{getpass.getuser()}@127.0.0.1"]


@contextmanager
def _privilege_separation() -> Iterator[None]:
    """The empty folder that root's sshd wants, where no service manager has made it."""
    if os.geteuid() or SEPARATION.exists():
        yield
        return
    SEPARATION.mkdir(0o755)
    try:
        yield
    finally:
        SEPARATION.rmdir()


@contextmanager
def _serving(words: list[str], folder: Path, port: int) -> Iterator[None]:
    with process(words, folder):
        wait_listening(port)
        yield
