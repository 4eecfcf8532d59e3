"""What was found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    """`fault`: the node would not work through the proxy. `warning`: something would not without the cloud."""
    about: str
    """What was looked at, in a word: `credentials`, say."""
    text: str
    """What was found."""
    remedy: str = ""
    """What to do about it; empty where nothing is to be done."""

    @property
    def told(self) -> str:
        """Returns it in one line."""
        return f"{self.about}: {self.text}" + (f"; {self.remedy}" if self.remedy else "")

    def as_json(self) -> dict[str, str]:
        """Returns it for programs."""
        return {"level": self.level, "about": self.about, "text": self.text, "remedy": self.remedy}


def good(about: str, text: str) -> Finding:
    """Returns what is as it should be."""
    return Finding("good", about, text)


def warning(about: str, text: str, remedy: str) -> Finding:
    """Returns what will fail while the cloud is away."""
    return Finding("warning", about, text, remedy)


def fault(about: str, text: str, remedy: str) -> Finding:
    """Returns what keeps the node from working through the proxy."""
    return Finding("fault", about, text, remedy)
