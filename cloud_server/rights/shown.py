"""Writes a policy as `cloud-server policy show` prints it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from cloud_server.rights.builtin import BUILTIN_ROLES
from cloud_server.rights.policy_file import PolicyFile, RuleConfig


def policy_json(policy: PolicyFile) -> dict[str, Any]:
    """Returns the roles of a policy, the built-in ones too, and who has each, ready for JSON."""
    roles: list[dict[str, Any]] = [
        {"name": name, "builtin": True, "allow": [{"verbs": sorted(verbs)} if verbs is not None else {}], "deny": []}
        for name, verbs in BUILTIN_ROLES.items()
    ]
    roles += [
        {
            "name": role.name,
            "builtin": False,
            "allow": [_rule(rule) for rule in role.allow],
            "deny": [_rule(rule) for rule in role.deny],
        }
        for role in policy.role
    ]
    for role in roles:
        mine = [binding for binding in policy.binding if binding.role == role["name"]]
        role["users"] = sorted({name for binding in mine for name in binding.users})
        role["groups"] = sorted({name for binding in mine for name in binding.groups})
    return {"roles": roles, "tests": len(policy.test)}


def policy_text(policy: PolicyFile) -> str:
    """Returns the same as lines of text for people."""
    return "\n".join(_lines(policy_json(policy)))


# Internal


def _rule(rule: RuleConfig) -> dict[str, Any]:
    """Returns the limits that a rule sets; what it does not limit is left out."""
    said = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    return {key: value for key, value in said.items() if value not in (None, False)}


def _lines(shown: dict[str, Any]) -> Iterator[str]:
    for role in shown["roles"]:
        yield f"role {role['name']}{' (built in)' if role['builtin'] else ''}"
        for kind in ("allow", "deny"):
            for rule in role[kind]:
                said = ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in rule.items())
                yield f"  {kind:6} {said or 'everything'}"
        yield f"  users  {', '.join(role['users']) or '-'}"
        yield f"  groups {', '.join(role['groups']) or '-'}"
    yield f"{shown['tests']} tests"
