"""Writes an explanation of the policy, as the admin API has it, in lines for people. Both commands print the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunnel.core.wire.spoken import printable


def explanation_text(shown: Mapping[str, Any]) -> str:
    """Returns an explanation as lines for people. `shown` is its JSON; what may be null in it may also be missing."""
    asked = shown["asked"]
    word = "allowed" if shown["allowed"] else "denied"
    reason = f": {shown['reason']}" if shown.get("reason") else ""
    lines = [f"{word} by {shown['rule']}{reason}"]
    who = f"{asked['kind'].replace('_', ' ')} {asked['name']}"
    if groups := asked.get("groups"):
        who += f", in {', '.join(groups)}"
    lines.append(f"  asked    {who}: {_asked_text(asked)}")
    lines.append(f"  roles    {', '.join(shown['roles']) or 'none'}")
    if (accounts := shown.get("accounts")) is not None:
        lines.append(f"  accounts {', '.join(accounts)}")
    if shown.get("record"):
        lines.append("  record   an interactive exec is recorded at the box")
    for one in shown["matched"]:
        mark = "decided" if one.get("rule") == shown["rule"] else "matched"
        lines.append(f"  {mark}  {_rule_text(one)}")
    lines += [f"  not      {_rule_text(one)}: {one.get('mismatch')}" for one in shown["others"]]
    return "\n".join(map(printable, lines))


# Internal


def _rule_text(one: Mapping[str, Any]) -> str:
    return f"{one['effect']:5} {one.get('rule')} (role {one.get('role')}, by {one.get('by')})"


def _asked_text(asked: Mapping[str, Any]) -> str:
    words = [asked["verb"]]
    for name, preposition in (("target", "to"), ("unit", "of"), ("whom", "as"), ("agent", "at")):
        words += [f"{preposition} {asked[name]}"] if asked.get(name) else []
    return " ".join([*words, f"through {asked['frontend']}"])
