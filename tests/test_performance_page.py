"""docs/performance.md: the constants and metrics that it names are the code's."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "performance.md").read_text()
UNITS = {"": 1, "KiB": 1024, "MiB": 1024 * 1024}
ROWS: list[tuple[str, str, str]] = re.findall(r"^\| `(tunnel\.[\w.]+)` \| ([\d.]+) ?(\w*) \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("name", "number", "unit"), ROWS)
def test_a_constant_is_as_the_page_says(name: str, number: str, unit: str) -> None:
    owner, _, attribute = name.rpartition(".")
    module, _, cls = owner.rpartition(".")
    held = getattr(importlib.import_module(module), cls)() if cls[0].isupper() else importlib.import_module(owner)
    assert getattr(held, attribute) == float(number) * UNITS[unit]


def test_the_table_was_found() -> None:
    assert len(ROWS) == len(re.findall(r"^\| `tunnel\.", PAGE, re.MULTILINE)) > 10


def test_metrics_exist() -> None:
    named = set(re.findall(r"`(longline_\w+)`", PAGE))
    assert named
    assert named <= set(re.findall(r'"(longline_\w+)"', (ROOT / "cloud_server" / "operate" / "metrics.py").read_text()))
