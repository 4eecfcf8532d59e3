"""Explains a decision: which rules are about an ask, which one decided, and why the other rules do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloud_server.rights.ask import WITH_TARGET, Ask, Verb
from cloud_server.rights.builtin import BUILTIN_GROUPS, may
from cloud_server.rights.engine import Decision, Rights
from cloud_server.rights.rules import Asked
from tunnel.core.wire.globs import MAX_GLOB_CHARS
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget

MAX_OTHERS = 50
"""The most rules that are shown although they do not fit. One user rarely has more."""
MAX_PORT = 65535
_WORDS = {
    "verbs": "it is about other verbs",
    "frontends": "it is about other front ends",
    "agents": "it is about other agents",
    "labels": "the agent does not have its labels",
    "targets": "it is about other targets",
    "metadata": "a metadata or link-local address must be named by itself in targets",
    "units": "it is about other units",
    "whom": "it is about others to act as",
}


class AskUnclear(ValueError):
    """The words of a question cannot be understood. The text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A rule that the asker has, with the reason why it does not fit the ask, if it does not."""

    rule: str
    role: str
    effect: str
    """`allow` or `deny`."""
    by: str
    """The name through which the asker has the rule, such as `group operators`."""
    mismatch: str = ""
    """The reason why the rule is not about the ask; empty when it is."""

    def as_json(self) -> dict[str, Any]:
        """Returns the rule as it is shown, ready for JSON."""
        shown = {"rule": self.rule, "role": self.role, "effect": self.effect, "by": self.by}
        return {**shown, "mismatch": self.mismatch} if self.mismatch else shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision with all rules that the asker has."""

    ask: Ask
    decision: Decision
    roles: Sequence[str]
    matched: Sequence[Weighed]
    """The rules that are about the ask. A deny among them decides, else an allow."""
    others: Sequence[Weighed]
    """The other rules that the asker has, MAX_OTHERS at most."""

    def as_json(self) -> dict[str, Any]:
        """Returns the explanation as the admin API and `-o json` show it, ready for JSON."""
        ask, decision = self.ask, self.decision
        return {
            "allowed": decision.allowed,
            "rule": decision.rule,
            "reason": decision.reason or None,
            "accounts": sorted(decision.accounts) if decision.accounts is not None else None,
            "record": decision.record,
            "asked": {
                "kind": ask.principal.kind.label,
                "name": ask.principal.name,
                "groups": list(ask.principal.groups),
                "frontend": ask.frontend,
                "verb": str(ask.verb),
                "agent": ask.agent or None,
                "labels": dict(ask.labels),
                "target": str(ask.target) if ask.target is not None else None,
                "unit": ask.unit or None,
                "whom": ask.whom or None,
            },
            "roles": list(self.roles),
            "matched": [one.as_json() for one in self.matched],
            "others": [one.as_json() for one in self.others],
        }


def explain(rights: Rights, ask: Ask) -> Explanation:
    """Returns the decision of an ask with the rules that led to it."""
    asked = Asked(ask)
    matched: list[Weighed] = []
    others: list[Weighed] = []
    for subject in rights.subjects(ask.principal):
        for rule in subject.book.rules:
            mismatch = rule.mismatch(asked)
            effect = "allow" if rule.allows else "deny"
            weighed = Weighed(rule.name, rule.role, effect, subject.name, _WORDS.get(mismatch, mismatch))
            (others if mismatch else matched).append(weighed)
    decision = rights.decide(ask)
    if may(ask.principal.kind, ask.verb) and decision.allowed:
        matched.append(Weighed(decision.rule, decision.rule, "allow", f"every {ask.principal.kind.label}"))
    matched.sort(key=lambda one: (one.rule != decision.rule, one.effect != "deny", one.rule))
    return Explanation(
        ask=ask, decision=decision, roles=rights.roles_of(ask.principal), matched=matched, others=others[:MAX_OTHERS]
    )


def build_ask(
    *,
    user: str,
    groups: Sequence[str] = (),
    frontend: str = "",
    verb: str = "",
    agent: str = "",
    labels: dict[str, str] | None = None,
    target: str = "",
    unit: str = "",
    whom: str = "",
) -> Ask:
    """Returns an ask made of words, as a command, a test of a policy file and the admin API have them.

    An empty word was not given.

    Raises:
        AskUnclear: something is missing, or is not what it should be.
    """
    for name in (user, agent, unit, whom.removeprefix("user:").removeprefix("group:")):
        if len(name) > MAX_GLOB_CHARS:
            raise AskUnclear(f"{name[:40]!r}... is longer than any name: {MAX_GLOB_CHARS} characters at most")
    if not verb and not target:
        raise AskUnclear("says neither a target nor a verb: nothing is asked")
    try:
        meant = Verb(verb or Verb.CONNECT)
    except ValueError:
        raise AskUnclear(f"{verb[:40]!r} is no verb; there are {', '.join(Verb)}") from None
    if meant is Verb.CONNECT and not target:
        raise AskUnclear("connect needs a target")
    if target and meant not in WITH_TARGET:
        raise AskUnclear(f"{meant} has no target")
    return Ask(
        principal=_principal(user, groups),
        frontend=frontend or ("connect" if meant is Verb.CONNECT else "fleet"),
        verb=meant,
        agent=agent,
        labels=labels or {},
        target=_target(target) if target else None,
        unit=unit,
        whom=whom,
    )


# Internal


def _principal(user: str, groups: Sequence[str]) -> Principal:
    """Returns the principal of a user; without a user, the kind of principal that the one built-in group stands for."""
    if user:
        return Principal(kind=PrincipalKind.USER, name=user, groups=tuple(groups))
    if len(groups) == 1 and groups[0] in BUILTIN_GROUPS:
        return Principal(kind=BUILTIN_GROUPS[groups[0]], name=groups[0])
    raise AskUnclear("says not who asks: a user, or one of the groups that are built in")


def _target(text: str) -> Target:
    if text.startswith("service:"):
        return ServiceTarget(text.removeprefix("service:"))
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= MAX_PORT):
        raise AskUnclear(f"{text[:80]!r} is no target: write host:port, [IPv6]:port or service:NAME")
    return TcpTarget(host, int(port))
