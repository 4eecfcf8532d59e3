"""A person with a stock kubectl and a kubeconfig: runs it to its end, follows it, or sits at its terminal."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.kubectl_choice import find_kubectl
from tests.support.processes import environment
from tests.support.pty_session import PtySession
from tests.support.waits import scaled_s

KUBECTL_S = 30.0
_OWN_RACE = re.compile(rb"^E\d{4} .*websocket\.go.*Unknown stream id \d, discarding message\n", re.MULTILINE)
"""Kubectls up to 1.30, at least, begin to read before they know their streams: on a busy machine they say so of the
empty message by which a server shows that it has a stream (client-go, tools/remotecommand/websocket.go). Nothing is
lost by it.
"""


class KubectlUser:
    """Inherit from it, and say with which files."""

    kubeconfig: Path
    folder: Path
    """Where kubectl runs, and its home."""
    program: Path | None = None
    """The kubectl itself; None: the one that `find_kubectl` finds."""
    prefix: Sequence[str] = ()
    """What comes before it: what enters a namespace."""

    @property
    def env(self) -> dict[str, str]:
        """What kubectl runs with."""
        return environment({"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)})

    def run_kubectl(
        self, *args: str, stdin: bytes = b"", timeout_s: float = KUBECTL_S
    ) -> subprocess.CompletedProcess[bytes]:
        """Run kubectl to its end, whatever its exit code. What it says of a race of its own is left out."""
        done = subprocess.run(
            self._argv(args), input=stdin, capture_output=True, env=self.env, cwd=self.folder,
            timeout=scaled_s(timeout_s),
        )  # fmt: skip
        done.stderr = _OWN_RACE.sub(b"", done.stderr)
        return done

    def kubectl(self, *args: str, stdin: bytes = b"", timeout_s: float = KUBECTL_S) -> str:
        """Run kubectl, and return what it prints.

        Raises:
            AssertionError: it did not exit with 0.
        """
        done = self.run_kubectl(*args, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stdout.decode()}{done.stderr.decode()}"
        return done.stdout.decode()

    @contextlib.contextmanager
    def follow(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """A kubectl that runs on, with a pipe from its output."""
        with subprocess.Popen(
            self._argv(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self.env, cwd=self.folder, text=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def shell(self, *args: str, size: tuple[int, int] = (24, 80)) -> PtySession:
        """A kubectl on a terminal."""
        return PtySession(self._argv(args), env=self.env, size=size, cwd=self.folder)

    # Internal

    def _argv(self, args: Sequence[str]) -> list[str | Path]:
        return [*self.prefix, self.program or find_kubectl(), *args]
