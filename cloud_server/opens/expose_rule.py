"""Holds the rule for what agents may reach through this server."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.core.wire.target_rule import TargetRule


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposeRule:
    """One target, or pattern of targets, that agents may reach."""

    target: TargetRule
    name: str | None = None
    """The name that it may be asked for by; None means by no name."""
    agents: frozenset[str] = frozenset()
    """The agents that may reach it; empty means all agents."""
