"""Runs one parser over inputs that are made from good ones, and keeps those that reach a line that none reached before.

Which lines of ours an input reaches is seen by Python's own trace hook, so that nothing has to be built or installed;
see docs/decisions. The same seed makes the same inputs. What goes wrong is made as small as it gets.
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

TOP = Path(__file__).parents[2]
OURS = tuple(str(TOP / name) for name in ("tunnel", "cloud_server", "edge_agent"))
MAX_INPUT_S = 2.0
"""Seconds of processor time that one input may take, traced: some hundred times as long as without."""
MAX_KEPT = 2000
SHRINK_S = 5.0
EDGES = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\r\n",
    b"\n",
    b"%",
    b"%zz",
    b"%ff",
    b"%00",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"\\",
)
NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"65536",
    b"99999999999999999999",
    b"9" * 5000,
    b"null",
    b"true",
    b"[]",
    b"{}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser to be fuzzed."""

    name: str
    seeds: Sequence[bytes]
    """Good inputs that everything starts from."""
    run: Callable[[bytes], object]
    """The function that parses, and asserts what must hold of the result."""
    allowed: tuple[type[BaseException], ...] = ()
    """The errors that the parser's docstring names: an input that is not good ends in one of them."""
    words: Sequence[bytes] = ()
    """Pieces that the grammar knows, put in anywhere."""
    max_bytes: int = 16 * 1024
    """The longest input; less where a parser is slow."""


class Found(Exception):
    """An input that made something escape, or took too long."""

    def __init__(self, target: str, data: bytes, why: str) -> None:
        shown = f"failure in {target}: {why}\nreproduce with: bytes.fromhex({data.hex()!r})\nwhich is {data[:500]!r}"
        super().__init__(shown)
        self.data = data


@dataclass(slots=True)
class Fuzzer:
    """One target, and what was learned about it."""

    target: Target
    dice: random.Random
    kept: list[bytes] = field(default_factory=list)
    reached: set[tuple[CodeType, int]] = field(default_factory=set)
    executions: int = 0

    def run(self, seconds: float, fewest: int = 0) -> None:
        """Fuzzes for so many seconds, and for `fewest` inputs at least.

        Raises:
            Found: with the input that shows it.
        """
        for seed in self.target.seeds:
            self._take(seed)
        self.kept = [*self.target.seeds]
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s or self.executions < fewest:
            self._take(self._mutated())

    # Internal

    def _take(self, data: bytes) -> None:
        self.executions += 1
        lines: set[tuple[CodeType, int]] = set()
        began_s = time.thread_time()
        if (fault := _fault(self.target, data, lines)) is not None:
            raise Found(self.target.name, self._shrunk(data, fault), fault)
        if (took_s := time.thread_time() - began_s) > MAX_INPUT_S:
            raise Found(self.target.name, data, f"took {took_s:.1f} s")
        if not lines <= self.reached:
            self.reached |= lines
            if len(self.kept) < MAX_KEPT:
                self.kept.append(data)

    def _mutated(self) -> bytes:
        dice = self.dice
        # What was found last is tried more often: it leads on.
        pool = self.kept[-20:] if dice.random() < 0.5 else self.kept
        data = dice.choice(pool or [b""])
        for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
            data = dice.choice((_bits, _cut, _repeat, self._word, self._word, self._splice, self._line))(dice, data)
        return data[: self.target.max_bytes]

    def _word(self, dice: random.Random, data: bytes) -> bytes:
        """Puts a word in, often in the place of one."""
        word = dice.choice((*self.target.words, *EDGES, *NUMBERS))
        at = dice.randrange(len(data) + 1)
        return data[:at] + word + data[at + dice.choice((0, 0, 1, len(word))) :]

    def _splice(self, dice: random.Random, data: bytes) -> bytes:
        other = dice.choice(self.kept or [b""])
        return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other) + 1) :]

    def _line(self, dice: random.Random, data: bytes) -> bytes:
        """Puts a line of another input in, or takes one out."""
        lines = data.split(b"\n")
        at = dice.randrange(len(lines))
        if dice.random() < 0.3:
            del lines[at]
        else:
            lines.insert(at, dice.choice(dice.choice(self.kept or [b""]).split(b"\n")))
        return b"\n".join(lines)

    def _shrunk(self, data: bytes, fault: str) -> bytes:
        """Returns the shortest input with the same fault that is found by leaving out pieces, for SHRINK_S."""
        end_s = time.monotonic() + SHRINK_S
        size = max(1, len(data) // 2)
        while size and time.monotonic() < end_s:
            at = 0
            while at < len(data) and time.monotonic() < end_s:
                shorter = data[:at] + data[at + size :]
                if _fault(self.target, shorter, None) == fault:
                    data = shorter
                else:
                    at += size
            size //= 2
        return data


def fuzz(target: Target, seconds: float, seed: int, fewest: int = 0) -> Fuzzer:
    """Fuzzes a target, and returns how that went.

    Raises:
        Found: with the input that shows it.
    """
    fuzzer = Fuzzer(target, random.Random(f"{seed} {target.name}"))
    fuzzer.run(seconds, fewest)
    return fuzzer


# Internal


def _fault(target: Target, data: bytes, lines: set[tuple[CodeType, int]] | None) -> str | None:
    """Runs a target. Returns where and what escaped; None when nothing did. `lines` gets the lines that it reached."""
    if lines is not None:
        sys.settrace(_tracer(lines))
    try:
        target.run(data)
    except target.allowed:
        return None
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        where = next((frame for frame in reversed(frames) if _is_ours(frame.filename)), frames[-1])
        return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
    finally:
        sys.settrace(None)
    return None


def _tracer(lines: set[tuple[CodeType, int]]) -> Callable[[FrameType, str, Any], Any]:
    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines.add((frame.f_code, frame.f_lineno))
        return local

    def calls(frame: FrameType, _event: str, _: Any) -> Any:
        return local if _is_ours(frame.f_code.co_filename) else None

    return calls


def _is_ours(filename: str) -> bool:
    return filename.startswith(OURS)


def _bits(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8)) if changed else 0):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _cut(dice: random.Random, data: bytes) -> bytes:
    start = dice.randrange(len(data) + 1)
    return data[:start] + data[start + dice.choice((1, 2, 5, len(data))) :]


def _repeat(dice: random.Random, data: bytes) -> bytes:
    start, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
    piece = data[start : min(end, start + 64)]
    return data[:start] + piece * dice.choice((2, 3, 10, 1000)) + data[end:]
