"""Holds one compiled rule of a role, and the index that finds the rules that may be about an ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from cloud_server.rights.ask import WITH_ACCOUNT, WITH_TARGET, WITH_UNIT, WITH_WHOM, Ask, Verb
from cloud_server.rights.patterns import Aim, Globs, TargetPattern, Targets


class RuleText(Protocol):
    """A rule as the file has it; see `RuleConfig`."""

    @property
    def name(self) -> str | None: ...  # noqa: D102
    @property
    def frontends(self) -> Sequence[str] | None: ...  # noqa: D102
    @property
    def agents(self) -> Sequence[str] | None: ...  # noqa: D102
    @property
    def labels(self) -> Mapping[str, str] | None: ...  # noqa: D102
    @property
    def patterns(self) -> Sequence[TargetPattern] | None: ...  # noqa: D102
    @property
    def units(self) -> Sequence[str] | None: ...  # noqa: D102
    @property
    def accounts(self) -> Sequence[str] | None: ...  # noqa: D102
    @property
    def whom(self) -> Sequence[str] | None: ...  # noqa: D102
    @property
    def record(self) -> bool: ...  # noqa: D102
    @property
    def verb_set(self) -> frozenset[Verb] | None: ...  # noqa: D102


class Asked:
    """An ask with its target prepared for rules. `aim` is None when the ask has no target."""

    __slots__ = ("aim", "ask")

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.aim = Aim(ask.target) if ask.target is not None else None


class Rule:
    """One compiled allow or deny. Attributes are None where the rule has no such limit."""

    __slots__ = (
        "_frontends", "_labels", "_targets", "_units", "_whom", "accounts", "agents", "allows", "name", "record",
        "role", "verbs",
    )  # fmt: skip

    def __init__(self, role: str, name: str, text: RuleText, *, allows: bool) -> None:
        """Compiles a rule. `name` is its name when `text` has none; `allows` says that it is an allow."""
        self.role = role
        self.name = text.name or name
        self.allows = allows
        self.verbs = text.verb_set
        self.agents = Globs(text.agents) if text.agents is not None else None
        self.accounts = frozenset(text.accounts) if text.accounts is not None else None
        self.record = text.record
        self._frontends = frozenset(text.frontends) if text.frontends is not None else None
        self._labels = tuple(text.labels.items()) if text.labels is not None else None
        self._targets = Targets(tuple(patterns)) if (patterns := text.patterns) is not None else None
        self._units = Globs(text.units) if text.units is not None else None
        self._whom = Globs(text.whom) if text.whom is not None else None

    def mismatch(self, asked: Asked) -> str:
        """Returns the name of the first limit that an ask does not fit; empty when the rule is about the ask."""
        ask = asked.ask
        if self.verbs is not None and ask.verb not in self.verbs:
            return "verbs"
        if self._frontends is not None and ask.frontend not in self._frontends:
            return "frontends"
        return self.agent_mismatch(ask.agent, ask.labels) or self._what_mismatch(asked)

    def agent_mismatch(self, agent: str, labels: Mapping[str, str]) -> str:
        """Returns `agents` or `labels`, whichever limit an agent does not fit; empty when it fits both."""
        if self.agents is not None and not self.agents.match(agent):
            return "agents"
        if self._labels is not None and any(labels.get(key) != value for key, value in self._labels):
            return "labels"
        return ""

    @property
    def is_of_agents(self) -> bool:
        """Returns whether the rule is limited to some agents, by name or by label."""
        return self.agents is not None or self._labels is not None

    @property
    def has_targets(self) -> bool:
        """Returns whether the rule is limited to some targets."""
        return self._targets is not None

    def is_of_some(self, verb: Verb) -> bool:
        """Returns whether the rule is limited to some targets, units or persons, and the verb has such."""
        limits = ((WITH_TARGET, self._targets), (WITH_UNIT, self._units), (WITH_WHOM, self._whom))
        return any(verb in verbs and limit is not None for verbs, limit in limits)

    def through(self, frontend: str) -> bool:
        """Returns whether the rule is about asks from a front end."""
        return self._frontends is None or frontend in self._frontends

    # Internal

    def _what_mismatch(self, asked: Asked) -> str:
        verb, aim = asked.ask.verb, asked.aim
        if verb in WITH_TARGET:
            if self._targets is None:
                if self.allows and aim is not None and aim.metadata:
                    return "metadata"
            elif aim is None:  # it is not known: no allow of some targets is enough, and any deny of some may be meant
                return "targets" if self.allows else ""
            elif not (self._targets.covers(aim) if self.allows else self._targets.touches(aim)):
                return "targets"
        elif verb in WITH_UNIT:
            if self._units is not None and not self._units.match(asked.ask.unit):
                return "units"
        elif verb in WITH_WHOM and self._whom is not None and not self._whom.match(asked.ask.whom):
            return "whom"
        return ""


class Index:
    """The rules of one kind and verb, sorted by name. They are found by what the name of an agent begins with."""

    __slots__ = ("_by_prefix", "_lengths", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = sorted(rules, key=lambda rule: rule.name)
        by_prefix: dict[str, list[Rule]] = {}
        for rule in self.rules:
            for prefix in rule.agents.prefixes if rule.agents is not None else ("",):
                by_prefix.setdefault(prefix, []).append(rule)
        self._by_prefix = by_prefix
        self._lengths = sorted({len(prefix) for prefix in by_prefix})

    def matching(self, asked: Asked) -> list[Rule]:
        """Returns the rules that are about an ask. A rule with several globs may be in there twice."""
        agent = asked.ask.agent
        found: list[Rule] = []
        for length in self._lengths:
            if length > len(agent):
                break
            found += [rule for rule in self._by_prefix.get(agent[:length], ()) if not rule.mismatch(asked)]
        return found


EMPTY = Index(())


class Book:
    """All rules of one user or group."""

    __slots__ = ("_allow", "_deny", "_rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(dict.fromkeys(rules))
        self._allow: dict[Verb, Index] = {}
        self._deny: dict[Verb, Index] = {}

    @property
    def rules(self) -> Sequence[Rule]:
        """Returns all rules, each once."""
        return self._rules

    def allow(self, verb: Verb) -> Index:
        """Returns the index of the allows for a verb."""
        return self._index(self._allow, verb, allows=True)

    def deny(self, verb: Verb) -> Index:
        """Returns the index of the denies for a verb."""
        return self._index(self._deny, verb, allows=False)

    def _index(self, made: dict[Verb, Index], verb: Verb, *, allows: bool) -> Index:
        """Returns an index, and makes it when it is first asked for: most users of a big file never come."""
        if (index := made.get(verb)) is None:
            rules = [
                rule for rule in self._rules if rule.allows == allows and (rule.verbs is None or verb in rule.verbs)
            ]
            index = made[verb] = Index(rules) if rules else EMPTY
        return index


def account_limit(rules: Iterable[Rule], verb: Verb) -> frozenset[str] | None:
    """Returns all accounts that several allows give together; None when one of them sets no limit, or the verb has
    none.
    """
    together: set[str] = set()
    for rule in rules:
        if rule.accounts is None or verb not in WITH_ACCOUNT:
            return None
        together |= rule.accounts
    return frozenset(together)
