"""Finds the differences between two policy files, role by role and binding by binding, for the log."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

from cloud_server.rights.policy_file import PolicyFile, RoleConfig, RuleConfig
from tunnel.aio.process.differences import Difference, differences


def policy_changes(old: PolicyFile, new: PolicyFile) -> list[Difference]:
    """Returns the differences; empty when both files mean the same, in whatever order they are written."""
    return [*_roles(old, new), *_bindings(old, new), *_tests(old, new)]


# Internal


def _roles(old: PolicyFile, new: PolicyFile) -> Iterator[Difference]:
    before, after = {role.name: role for role in old.role}, {role.name: role for role in new.role}
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            count = len(now.allow) + len(now.deny)
            yield Difference("role", f"role {name}: added, with {count} rule{'' if count == 1 else 's'}")
        elif now is None:
            yield Difference("role", f"role {name}: removed")
        elif was is not None and was != now:
            yield from _rules(was, now)


def _rules(old: RoleConfig, new: RoleConfig) -> Iterator[Difference]:
    """Yields which rules of a role were added, removed or moved, in the words of a changed setting."""
    for kind in ("allow", "deny"):
        for one in differences(_Rules(getattr(old, kind)), _Rules(getattr(new, kind))):
            yield Difference("role", f"role {new.name}: {one.text.replace('rules', kind, 1)}")


@dataclasses.dataclass(frozen=True)
class _Rules:
    rules: list[RuleConfig]


def _bindings(old: PolicyFile, new: PolicyFile) -> Iterator[Difference]:
    """Compares who has which role, not how the file groups them."""
    before, after = _bound(old), _bound(new)
    for sign, only in (("removed", before - after), ("added", after - before)):
        for role, who in sorted(only):
            yield Difference("binding", f"binding of {who} to {role}: {sign}")


def _bound(policy: PolicyFile) -> set[tuple[str, str]]:
    return {
        (str(binding.role), f"{kind} {name}")
        for binding in policy.binding
        for kind, names in (("user", binding.users), ("group", binding.groups))
        for name in names
    }


def _tests(old: PolicyFile, new: PolicyFile) -> Iterator[Difference]:
    """Yields how many tests were removed and added, and no more: tests do not change what is allowed."""
    before, after = Counter(map(repr, old.test)), Counter(map(repr, new.test))
    if gone := (before - after).total():
        yield Difference("test", f"tests: {gone} removed")
    if came := (after - before).total():
        yield Difference("test", f"tests: {came} added")
