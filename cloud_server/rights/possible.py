"""Tells whether a verb may be used at all. `kubectl auth can-i` asks that, and so does a list before it is filtered."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from cloud_server.rights.ask import WITH_TARGET, Ask
from cloud_server.rights.builtin import group_of, may
from cloud_server.rights.engine import DEFAULT_DENY, Rights, why_not
from cloud_server.rights.rules import Asked, Rule
from cloud_server.rights.scopes import SCOPE_RULE, scope_refusal


class Possibility(NamedTuple):
    """The answer to whether a verb may be used at all."""

    allowed: bool
    rule: str
    """The name of the rule that decided; see `Decision`."""
    reason: str = ""
    limited: bool = False
    """Whether the answer holds for some agents, targets, units or persons only. The caller must ask `decide` about
    each."""


def possible(rights: Rights, ask: Ask) -> Possibility:
    """Returns whether some ask of this kind would be allowed.

    The target, unit and whom of the ask are ignored. With an agent the answer is about that agent, without about any.
    """
    scope = ask.scope
    asked = Asked(replace(ask, scope=replace(scope, targets=None, agents=scope.agents if ask.agent else None)))
    if refusal := scope_refusal(asked.ask.scope, asked):
        return Possibility(False, SCOPE_RULE, refusal)
    allows, denies = _rules(rights, ask)
    for rule in denies:
        if _is_whole(rule, ask):
            return Possibility(False, rule.name)
    narrowed = bool(denies) or (scope.agents is not None and not ask.agent)
    narrowed |= scope.targets is not None and ask.verb in WITH_TARGET
    kind = ask.principal.kind
    if may(kind, ask.verb):
        return Possibility(True, group_of(kind), limited=narrowed)
    if not allows:
        return Possibility(False, DEFAULT_DENY, why_not(asked))
    whole = [rule for rule in allows if _is_whole(rule, ask)]
    return Possibility(True, (whole or allows)[0].name, limited=narrowed or not whole)


# Internal


def _rules(rights: Rights, ask: Ask) -> tuple[list[Rule], list[Rule]]:
    """Returns the allows and the denies that may be about an ask, each sorted by name."""
    allows: list[Rule] = []
    denies: list[Rule] = []
    for subject in rights.subjects(ask.principal):
        for found, index in ((allows, subject.book.allow(ask.verb)), (denies, subject.book.deny(ask.verb))):
            found += [rule for rule in index.rules if rule.through(ask.frontend) and _is_about(rule, ask)]
    allows.sort(key=_name)
    denies.sort(key=_name)
    return allows, denies


def _is_about(rule: Rule, ask: Ask) -> bool:
    return not ask.agent or not rule.agent_mismatch(ask.agent, ask.labels)


def _is_whole(rule: Rule, ask: Ask) -> bool:
    """Returns whether a rule covers everything that an ask may turn out to be."""
    return not rule.is_of_some(ask.verb) and (bool(ask.agent) or not rule.is_of_agents)


def _name(rule: Rule) -> str:
    return rule.name
