"""Holds the compiled rights of one policy file. Whether something may be done is decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from cloud_server.rights.ask import Ask, Verb
from cloud_server.rights.builtin import BUILTIN_ROLES, NAMED_BY_CONFIGURATION, SYSTEM, group_of, may
from cloud_server.rights.rules import Asked, Book, Index, Rule, RuleText, account_limit
from cloud_server.rights.scopes import SCOPE_RULE, scope_refusal
from cloud_server.trust.caller import UNLIMITED, Scope
from tunnel.core.wire.principal import Principal, PrincipalKind

DEFAULT_DENY = "default deny"


class RoleText(Protocol):
    """A role as the file has it; see `RoleConfig`."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def allow(self) -> Sequence[RuleText]: ...  # noqa: D102
    @property
    def deny(self) -> Sequence[RuleText]: ...  # noqa: D102


class BindingText(Protocol):
    """A binding as the file has it; see `BindingConfig`."""

    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def users(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def groups(self) -> Sequence[str]: ...  # noqa: D102


class Decision(NamedTuple):
    """The answer to one ask, with the rule that decided."""

    allowed: bool
    rule: str
    """The name of the rule that decided: `operators.allow[2]` or the rule's own name, `builtin admin`,
    `system:forwards`, `default deny`."""
    reason: str = ""
    """The reason, in words for the one who is refused; empty when there is nothing to add to the rule's name."""
    accounts: frozenset[str] | None = None
    """The accounts on the box that an exec may run as; None when it may run as any."""
    record: bool = False
    """Whether the box must record an interactive exec."""


class Subject(NamedTuple):
    """One of the names that the policy knows an asker by, with the rules that it has."""

    name: str
    """The kind and the name, such as `user ann` or `group operators`."""
    book: Book


class Rights:
    """The compiled rights. They never change: another policy replaces them as a whole.

    Methods are called in the event loop, and neither block nor raise.
    """

    def __init__(self, roles: Sequence[RoleText], bindings: Sequence[BindingText]) -> None:
        """Compiles the roles and bindings.

        The caller must make sure that every bound role is among `roles` or built in.
        """
        users: dict[str, list[str]] = {}
        groups: dict[str, list[str]] = {}
        for binding in bindings:
            for names, bound in ((binding.users, users), (binding.groups, groups)):
                for name in names:
                    bound.setdefault(name, []).append(binding.role)
        self._roles: Mapping[str, RoleText] = {role.name: role for role in roles}
        self._users: Mapping[str, Sequence[str]] = users
        self._groups: Mapping[str, Sequence[str]] = groups
        # Made when they are first asked for: of the users of a big file few come between two changes of it.
        self._rules: dict[str, tuple[Rule, ...]] = {}
        self._books: dict[tuple[bool, str], Book] = {}

    # Public

    def decide(self, ask: Ask) -> Decision:
        """Returns whether something may be done, and which rule decided.

        A deny wins over every allow, and what no rule allows is refused.
        """
        asked = Asked(ask)
        if refusal := scope_refusal(ask.scope, asked):
            return Decision(False, SCOPE_RULE, refusal)
        books = self._books_of(ask.principal)
        verb = ask.verb
        denying = _matching((book.deny(verb) for book in books), asked)
        if denying:
            return Decision(False, _first(denying).name)
        kind = ask.principal.kind
        if may(kind, verb) and (asked.aim is None or not asked.aim.metadata or kind in NAMED_BY_CONFIGURATION):
            return Decision(True, group_of(kind))
        allowing = _matching((book.allow(verb) for book in books), asked)
        if not allowing:
            return Decision(False, DEFAULT_DENY, why_not(asked))
        return Decision(
            True, _first(allowing).name, "", account_limit(allowing, verb), any(rule.record for rule in allowing)
        )

    def forbids(self, ask: Ask) -> Decision | None:
        """Returns the decision that forbids the address that an allowed name resolved to; None when nothing forbids it.

        An address is forbidden when a deny covers it, or when it is a metadata address that no rule names by itself.
        """
        asked = Asked(ask)
        if asked.aim is not None and asked.aim.metadata:
            decision = self.decide(ask)
            return None if decision.allowed else decision
        books = self._books_of(ask.principal)
        denying = _matching((book.deny(ask.verb) for book in books), asked)
        return Decision(False, _first(denying).name) if denying else None

    def denies_targets(self, principal: Principal) -> bool:
        """Returns whether any rule that denies an asker `connect` is limited to some targets."""
        return any(rule.has_targets for book in self._books_of(principal) for rule in book.deny(Verb.CONNECT).rules)

    def agents_visible(
        self, principal: Principal, scope: Scope, frontend: str, verb: Verb = Verb.GET
    ) -> Callable[[str, Mapping[str, str]], bool] | None:
        """Returns a function that tells, by an agent's name and operator-set labels, whether the asker may see it; None
        when the asker may see all agents.

        It decides like `decide` for a verb that has neither target nor unit, and is fast enough for lists of thousands.
        """
        books = self._books_of(principal)
        allow = [rule for book in books for rule in book.allow(verb).rules if rule.through(frontend)]
        deny = [rule for book in books for rule in book.deny(verb).rules if rule.through(frontend)]
        everywhere = may(principal.kind, verb) or any(not rule.is_of_agents for rule in allow)
        if everywhere and not deny and scope == UNLIMITED:
            return None

        def visible(agent: str, labels: Mapping[str, str]) -> bool:
            if scope != UNLIMITED:
                ask = Ask(principal=principal, scope=scope, frontend=frontend, verb=verb, agent=agent, labels=labels)
                if scope_refusal(scope, Asked(ask)):
                    return False
            if any(not rule.agent_mismatch(agent, labels) for rule in deny):
                return False
            return everywhere or any(not rule.agent_mismatch(agent, labels) for rule in allow)

        return visible

    def subjects(self, principal: Principal) -> Iterator[Subject]:
        """Yields the names that the policy knows an asker by, each with its rules; nothing for an asker that it does
        not know.
        """
        for is_group, name in _names(principal):
            if (book := self._book(is_group, name)) is not None:
                yield Subject(f"{'group' if is_group else 'user'} {name}", book)

    def roles_of(self, principal: Principal) -> list[str]:
        """Returns the names of the roles that an asker has, sorted."""
        found: set[str] = set()
        for is_group, name in _names(principal):
            found.update((self._groups if is_group else self._users).get(name, ()))
        return sorted(found)

    # Internal

    def _books_of(self, principal: Principal) -> list[Book]:
        return [book for is_group, name in _names(principal) if (book := self._book(is_group, name)) is not None]

    def _book(self, is_group: bool, name: str) -> Book | None:
        key = (is_group, name)
        if (book := self._books.get(key)) is None:
            roles = (self._groups if is_group else self._users).get(name)
            if roles is None:
                return None
            book = self._books[key] = Book(rule for role in roles for rule in self._rules_of(role))
        return book

    def _rules_of(self, role: str) -> tuple[Rule, ...]:
        if (rules := self._rules.get(role)) is None:
            rules = _builtin_rules(role) if role in BUILTIN_ROLES else _rules(self._roles[role])
            self._rules[role] = rules
        return rules


def why_not(asked: Asked) -> str:
    """Returns a sentence which says that no rule allows an ask."""
    ask = asked.ask
    who = f"{ask.principal.kind.label.replace('_', ' ')} {ask.principal.name}"
    if asked.aim is not None and asked.aim.metadata:
        return f"{asked.aim.target} is a metadata or link-local address, which a rule must name by itself"
    what = f"{ask.verb} to {asked.aim.target}" if asked.aim is not None else str(ask.verb)
    unit = f" of {ask.unit}" if ask.unit else ""
    where = f" at {ask.agent}" if ask.agent else ""
    return f"no rule lets {who} {what}{unit}{where}"


# Internal


def _names(principal: Principal) -> list[tuple[bool, str]]:
    """Returns the names that the policy may know an asker by; groups are marked True.

    A group that a credential claims and that begins with `system:` is left out: those are built in.
    """
    if principal.kind is not PrincipalKind.USER:
        group = group_of(principal.kind)
        return [(True, group)] if group else []
    names = [(True, group) for group in principal.groups if not group.startswith(SYSTEM)]
    names.append((False, principal.name))
    return names


def _matching(indexes: Iterable[Index], asked: Asked) -> list[Rule]:
    found: list[Rule] = []
    for index in indexes:
        if index.rules:
            found += index.matching(asked)
    return found


def _first(rules: Sequence[Rule]) -> Rule:
    """Returns the rule that is named when several decide the same. It is always the same one of them."""
    return rules[0] if len(rules) == 1 else min(rules, key=lambda rule: rule.name)


class _Builtin:
    """The text of the one rule of a built-in role."""

    frontends = agents = labels = patterns = units = accounts = whom = None
    record = False

    def __init__(self, role: str) -> None:
        self.name = f"builtin {role}"
        self.verb_set = BUILTIN_ROLES[role]


def _builtin_rules(role: str) -> tuple[Rule, ...]:
    text = _Builtin(role)
    return (Rule(role, text.name, text, allows=True),)


def _rules(role: RoleText) -> tuple[Rule, ...]:
    return tuple(
        Rule(role.name, f"{role.name}.{kind}[{index}]", text, allows=kind == "allow")
        for kind, texts in (("allow", role.allow), ("deny", role.deny))
        for index, text in enumerate(texts)
    )
