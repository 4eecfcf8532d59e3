"""Writes an explanation of the policy, as the admin API has it, in lines for people. Both commands print the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunnel.core.wire.spoken import printable


def explanation_text(shown: Mapping[str, Any]) -> str:
    """Returns an explanation as lines for people. `shown` is its JSON."""
    asked = shown["asked"]
    word = "allowed" if shown["allowed"] else "denied"
    reason = f": {shown['reason']}" if shown["reason"] else ""
    lines = [f"{word} by {shown['rule']}{reason}"]
    who = f"{asked['kind'].replace('_', ' ')} {asked['name']}"
    if asked["groups"]:
        who += f", in {', '.join(asked['groups'])}"
    lines.append(f"  asked    {who}: {_asked_text(asked)}")
    lines.append(f"  roles    {', '.join(shown['roles']) or 'none'}")
    if shown["accounts"] is not None:
        lines.append(f"  accounts {', '.join(shown['accounts'])}")
    if shown["record"]:
        lines.append("  record   an interactive exec is recorded at the box")
    for one in shown["matched"]:
        mark = "decided" if one["rule"] == shown["rule"] else "matched"
        lines.append(f"  {mark}  {one['effect']:5} {one['rule']} (role {one['role']}, by {one['by']})")
    lines += [
        f"  not      {one['effect']:5} {one['rule']} (role {one['role']}, by {one['by']}): {one['mismatch']}"
        for one in shown["others"]
    ]
    return "\n".join(map(printable, lines))


# Internal


def _asked_text(asked: Mapping[str, Any]) -> str:
    words = [asked["verb"]]
    words += [f"to {asked['target']}"] if asked["target"] else []
    words += [f"of {asked['unit']}"] if asked["unit"] else []
    words += [f"as {asked['whom']}"] if asked["whom"] else []
    words += [f"at {asked['agent']}"] if asked["agent"] else []
    return " ".join([*words, f"through {asked['frontend']}"])
