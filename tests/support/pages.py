"""The pages that people read, and the fenced blocks in them."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parent.parent.parent
HOWTO = TOP / "docs" / "howto"
PAGES = [
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    TOP / "SECURITY.md",
    *(path for path in sorted((TOP / "docs").rglob("*.md")) if path.parent.name != "errors"),
]
"""All of them; those of the error codes are made from a table and have tests of their own."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_MARKER = re.compile(r"<!-- ([^\n]*) -->\n *$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block, those inside lists too."""

    page: Path
    line: int
    """The line of its first fence."""
    language: str
    marker: str
    """The comment on the line before; empty when there is none."""
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(TOP)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page."""
    content = page.read_text()
    found = []
    for match in _FENCE.finditer(content):
        marker = _MARKER.search(content[: match.start()])
        found.append(
            Block(
                page=page, line=content.count("\n", 0, match.start()) + 1, language=match["language"],
                marker=marker[1] if marker else "", text=textwrap.dedent(match["text"]),
            )
        )  # fmt: skip
    return found


def blocks(page: Path, language: str) -> list[str]:
    """The texts of the blocks of a language; `sh` are commands."""
    return [block.text for block in blocks_of(page) if block.language == language]


def commands() -> list[Block]:
    """Every block of commands of every page."""
    return [block for page in PAGES for block in blocks_of(page) if block.language in ("sh", "console", "bash", "")]


def anchors(file: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
