"""A relay in a process of its own, for tests that measure: it must not share an interpreter with what is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.relay import Address, Cut
from tests.support.relay_pipe import Shape

ROOT = Path(__file__).parent.parent.parent


class RelayProcess:
    """A `Relay` in a process of its own; the same methods. Use as a context manager."""

    def __init__(
        self, target: Address, *, listen: Address = ("127.0.0.1", 0), up: Shape | None = None, down: Shape | None = None
    ) -> None:
        argv = [sys.executable, "-m", "tests.support.relay", "--target", f"{target[0]}:{target[1]}"]
        argv += ["--listen", f"{listen[0]}:{listen[1]}"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)
        self.address = str(self._answer())
        self.port = int(self.address.rpartition(":")[2])
        if up or down:
            self.shape(up=up, down=down)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def shape(self, *, up: Shape | None = None, down: Shape | None = None) -> None:
        self._call("shape", up=up and up.as_dict(), down=down and down.as_dict())

    def aim(self, target: Address) -> None:
        self._call("aim", target=target)

    def cut(self, how: Cut = "rst") -> int:
        return int(self._call("cut", how=how))

    def cut_after(self, marks_bytes: Sequence[int], how: Cut = "rst") -> None:
        self._call("cut_after", marks_bytes=list(marks_bytes), how=how)

    def freeze(self) -> None:
        self._call("freeze")

    def black_hole(self) -> None:
        self._call("black_hole")

    def refuse(self) -> None:
        self._call("refuse")

    def heal(self) -> None:
        self._call("heal")

    def counters(self) -> dict[str, int]:
        return dict(self._call("counters"))

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _call(self, method: str, **arguments: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the relay process ended with exit code {self._process.wait()}")
        return json.loads(line)
