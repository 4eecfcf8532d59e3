"""How the demo speaks: narration, commands with their real output, daemons in the background. All ends with it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

from tests.support.processes import Daemon, environment

T = TypeVar("T")

WIDTH = 110
COMMAND_S = 40.0


class StepFailed(Exception):
    """A step of the demo did not show what it should; the text says what."""


class Stage:
    """A folder to work in, and everything that was started. Use as a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="longline-demo-"))
        self.daemons: list[Daemon] = []
        self.env: dict[str, str] = {}
        """What commands get beside the usual, as in KUBECONFIG."""
        self._stack = contextlib.ExitStack()
        self._began = time.monotonic()
        self._steps = 0
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.__exit__(None, None, None)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def enter(self, context: contextlib.AbstractContextManager[T]) -> T:
        """Have this ended with the demo, before what was entered earlier."""
        return self._stack.enter_context(context)

    # What is said

    def step(self, title: str) -> None:
        """Begin the next part."""
        self._steps += 1
        print(f"\n{self._bold(f'{self._steps}. {title}')}", flush=True)

    def say(self, text: str) -> None:
        print(textwrap.fill(" ".join(text.split()), WIDTH, initial_indent="   ", subsequent_indent="   "), flush=True)

    def show(self, text: str) -> None:
        """Output of a command."""
        if shown := text.strip("\n"):
            print(shown, flush=True)

    def show_command(self, command: str, *, where: str = "") -> None:
        print(self._bold(f"{where}$ {command}"), flush=True)

    # What is done

    def run(
        self,
        command: str,
        *,
        where: str = "",
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        fails: bool = False,
    ) -> str:
        """Show a shell command, run it in the demo's folder, and show what it prints.

        Args:
            command: As a person would type it.
            where: Shown before the `$`: the box's name for what runs there.
            prefix: What comes before it, to enter a namespace.
            env: More of its environment.
            fails: Whether it is to fail.

        Raises:
            StepFailed: it did not end as it should.
        """
        self.show_command(command, where=where)
        argv = [*prefix, "bash", "-o", "pipefail", "-c", command]
        own = environment({**self.env, **(env or {})})
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=own,
                timeout=COMMAND_S,
                text=True,
            )
        except subprocess.TimeoutExpired as expired:
            raise StepFailed(f"`{command}` did not end within {COMMAND_S:g} s") from expired
        self.show(done.stdout)
        if fails != bool(done.returncode):
            raise StepFailed(f"`{command}` exited with {done.returncode}")
        return done.stdout

    def start(self, command: str, *, where: str = "", prefix: Sequence[str] = (), name: str) -> Daemon:
        """Show a daemon's command, start it, and wait until it says READY=1."""
        self.show_command(f"{command} &", where=where)
        daemon = Daemon(name, shlex.split(command), self.folder / f"{name}.log", prefix=prefix, cwd=self.folder)
        self._stack.enter_context(daemon)
        self.daemons.append(daemon)
        began = time.monotonic()
        daemon.start().wait_ready(20)
        self.say(f"({name}: READY=1 after {time.monotonic() - began:.1f} s)")
        return daemon

    def follow(self, command: str, lines: int, timeout_s: float = 20.0) -> list[str]:
        """Show a command that does not end by itself, its first lines as they come, and then stop it.

        Raises:
            StepFailed: it ended, or did not print so much in time.
        """
        self.show_command(command)
        process = subprocess.Popen(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=environment(self.env),
            text=True,
        )
        assert process.stdout is not None
        watchdog = threading.Timer(timeout_s, process.kill)
        watchdog.start()
        seen: list[str] = []
        try:
            while len(seen) < lines and (line := process.stdout.readline()):
                self.show(line)
                seen.append(line)
        finally:
            watchdog.cancel()
            process.terminate()
            process.wait(10)
            process.stdout.close()
        self.show("^C")
        if len(seen) < lines:
            raise StepFailed(f"`{command}` printed {len(seen)} lines, not {lines}")
        return seen

    def tails(self, lines: int = 20) -> str:
        """The ends of all logs."""
        return "\n".join(daemon.tail(lines) for daemon in self.daemons if daemon.log_text())

    def _bold(self, text: str) -> str:
        return f"\033[1m{text}\033[0m" if self._colour else text
