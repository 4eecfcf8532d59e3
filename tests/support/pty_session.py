"""A command on a pseudo-terminal, as a person at a keyboard drives it: type, wait for what appears, resize."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.waits import Deadline


class PtySession:
    """Use as a context manager: the command is killed at the end."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        size: tuple[int, int] = (24, 80),
        cwd: Path | None = None,
    ) -> None:
        """`size` is rows and columns."""
        self.output = ""
        """All that has appeared so far."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._master, slave = pty.openpty()
        self._set_size(size)
        self._process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd)
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        self._set_size((rows, columns))
        # The terminal is not the command's controlling one, so the kernel does not tell it.
        self._process.send_signal(signal.SIGWINCH)

    def expect(self, pattern: str, timeout_s: float = 10.0) -> re.Match[str]:
        """Wait until the output since the last match matches `pattern`, and take the output up to there.

        Raises:
            AssertionError: it did not in time, or the command ended before.
        """
        deadline = Deadline(timeout_s)
        while not (found := re.search(pattern, self.output)):
            assert not deadline.passed(), f"{pattern!r} did not appear within {timeout_s:g} s in {self.output!r}"
            assert self._read(0.1), f"the command ended; {pattern!r} is not in {self.output!r}"
        self.output = self.output[found.end() :]
        return found

    def wait(self, timeout_s: float = 10.0) -> int:
        """Wait for the end of the command; returns its exit code."""
        deadline = Deadline(timeout_s)
        while self._read(0.1):
            assert not deadline.passed(), f"the command did not end within {timeout_s:g} s: {self.output!r}"
        return self._process.wait(timeout_s)

    def _read(self, timeout_s: float) -> bool:
        """Take what there is; returns whether more may come."""
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if not ready:
            return True
        data = b""
        with contextlib.suppress(OSError):  # the kernel's way to say that the other side is closed
            data = os.read(self._master, 65536)
        self.output += self._decoder.decode(data)
        return bool(data)

    def _set_size(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
