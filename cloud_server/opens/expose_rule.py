"""What agents may reach through this server."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.core.wire.target_rule import TargetRule


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposeRule:
    """One thing that agents may reach."""

    target: TargetRule
    name: str | None = None
    """It may be asked for by this name; None: by none."""
    agents: frozenset[str] = frozenset()
    """Who may; empty: all of them."""
