"""The version of our distribution, which `pyproject.toml` reads here. `importlib.metadata` would cost an agent 2 MB."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
