"""Reads policy.toml: its roles, bindings and tests. Its faults are found at once, and the first of them told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from cloud_server.rights.ask import WITH_ACCOUNT, WITH_TARGET, WITH_UNIT, WITH_WHOM, Verb
from cloud_server.rights.builtin import ADMIN, BUILTIN_GROUPS, BUILTIN_ROLES, SYSTEM
from cloud_server.rights.cases import run_cases
from cloud_server.rights.engine import Rights
from cloud_server.rights.patterns import TargetPattern
from tunnel.aio.process import garbage
from tunnel.aio.process.config import MAX_FAULTS, ConfigError, Fault, Validated, load
from tunnel.core.wire.faults import CONFIG_INVALID, CONFIG_UNREADABLE, POLICY_INVALID
from tunnel.core.wire.globs import is_glob

Frontend = Literal["admin", "connect", "expose", "fleet", "forward", "konnectivity", "socks"]
VerbName = Literal[
    "connect", "get", "logs", "exec", "port-forward", "cp", "observe", "administer", "impersonate",
]  # fmt: skip


class Glob(str):
    """The name of one thing, or with `*` and `?` a pattern for several."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> Self:
        """Returns a value of a policy file as a glob.

        Raises:
            ValueError: the value cannot be one.
        """
        if not isinstance(value, str) or not is_glob(value):
            raise ValueError(f"{value!r} is neither a name nor one with * and ? in it")
        return cls(value)


class WhomGlob(Glob):
    """A glob that begins with `user:` or `group:`."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> Self:
        """Returns a value of a policy file as a glob over users or groups.

        Raises:
            ValueError: the value cannot be one.
        """
        made = super().from_config(value)
        if not made.startswith(("user:", "group:")):
            raise ValueError(f"{value!r} does not say whom: write user:NAME or group:NAME")
        return made


class TargetText(str):
    """A target pattern as a rule has it; see `TargetPattern`. `pattern` is the parsed one."""

    __slots__ = ("pattern",)

    pattern: TargetPattern

    @classmethod
    def from_config(cls, value: object) -> TargetText:
        """Returns a value of a policy file as a target, with its pattern.

        Raises:
            ValueError: the value cannot be one.
        """
        if not isinstance(value, str) or not value:
            raise ValueError(f"must be a string such as '10.0.0.0/8:443', not {value!r}")
        made = cls(value)
        made.pattern = TargetPattern(value)
        return made


class Name(str):
    """The name of a role, a rule, a user or a group."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> Name:
        """Returns a value of a policy file as a name.

        Raises:
            ValueError: the value has not 1 to 253 printable characters.
        """
        if not isinstance(value, str) or not 1 <= len(value) <= 253 or not value.isprintable() or value.isspace():
            raise ValueError(f"must be a name of 1 to 253 characters, not {value!r}")
        return cls(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleConfig:
    """A `[[role.allow]]` or `[[role.deny]]`. A field that is absent, None, sets no limit."""

    name: Name | None = None
    frontends: list[Frontend] | None = None
    agents: list[Glob] | None = None
    labels: dict[str, str] | None = None
    targets: list[TargetText] | None = None
    verbs: list[VerbName] | None = None
    units: list[Glob] | None = None
    accounts: list[Name] | None = None
    record: bool = False
    whom: list[WhomGlob] | None = None

    @property
    def patterns(self) -> Sequence[TargetPattern] | None:
        """Returns the parsed targets of the rule; None when it has no such limit."""
        return [target.pattern for target in self.targets] if self.targets is not None else None

    @property
    def verb_set(self) -> frozenset[Verb] | None:
        """Returns the verbs that the rule is about: those that it names, else those that its limits are made for; None
        stands for all verbs.
        """
        if self.verbs is not None:
            return frozenset(map(Verb, self.verbs))
        meant: set[Verb] = set()
        for _, verbs in self._made_for():
            meant |= verbs
        return frozenset(meant) or None

    def faults(self, key: str, *, denies: bool) -> Iterator[Fault]:
        """Yields what does not fit together in the rule.

        `key` is its place in the file; `denies` says that it is a deny.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list | dict) and not value:
                yield Fault(f"{key}.{field.name}", "is empty, and would fit nothing: leave it out for no limit")
        if self.verbs:
            for name, verbs in self._made_for():
                if verbs.isdisjoint(self.verbs):
                    yield Fault(f"{key}.{name}", f"limits only {', '.join(sorted(verbs))}, and none of it is in verbs")
        if denies:
            for name in ("accounts", "record"):
                if getattr(self, name):
                    yield Fault(f"{key}.{name}", "belongs to an allow: a deny refuses, it does not change how")

    def _made_for(self) -> Iterator[tuple[str, frozenset[Verb]]]:
        for name, there, verbs in (
            ("targets", self.targets is not None, WITH_TARGET),
            ("units", self.units is not None, WITH_UNIT),
            ("accounts", self.accounts is not None, WITH_ACCOUNT),
            ("record", self.record, frozenset({Verb.EXEC})),
            ("whom", self.whom is not None, WITH_WHOM),
        ):
            if there:
                yield name, verbs


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoleConfig:
    """A `[[role]]`: a name with rules."""

    name: Name
    allow: list[RuleConfig] = dataclasses.field(default_factory=list)
    deny: list[RuleConfig] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BindingConfig:
    """A `[[binding]]`: the users and groups that have a role."""

    role: Name
    users: list[Name] = dataclasses.field(default_factory=list)
    groups: list[Name] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestConfig:
    """A `[[test]]`: an ask, and what the file must say of it. A file that says otherwise is not used."""

    expect: Literal["allow", "deny"]
    name: Name | None = None
    user: str = ""
    groups: list[Name] = dataclasses.field(default_factory=list)
    agent: str = ""
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    target: str = ""
    """The target, as `host:port` or `service:NAME`. Without a verb it means `connect`."""
    verb: VerbName | None = None
    unit: str = ""
    whom: str = ""
    frontend: Frontend | None = None
    """The front end; None means `connect` for the verb of that name, else `fleet`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyFile(Validated):
    """The whole policy file."""

    role: list[RoleConfig] = dataclasses.field(default_factory=list)
    binding: list[BindingConfig] = dataclasses.field(default_factory=list)
    test: list[TestConfig] = dataclasses.field(default_factory=list)

    @cached_property
    def rights(self) -> Rights:
        """Returns the compiled rights of the file. They are compiled once, when they are first asked for."""
        return Rights(self.role, self.binding)

    def faults(self) -> Iterable[Fault]:
        """Returns what does not fit together; when all fits, the tests that fail."""
        found = [*self._role_faults(), *self._binding_faults()]
        return found or list(run_cases(self.rights, self.test))

    def _role_faults(self) -> Iterator[Fault]:
        seen: set[str] = set()
        rules: set[str] = set()
        for index, role in enumerate(self.role):
            key = f"role[{index}]"
            if role.name in BUILTIN_ROLES:
                yield Fault(f"{key}.name", f"{role.name!r} is built in: take another name")
            elif role.name in seen:
                yield Fault(f"{key}.name", f"{role.name!r} is there already: add the rules to that one")
            seen.add(role.name)
            if not role.allow and not role.deny:
                yield Fault(key, "has no rule: it needs a [[role.allow]] or a [[role.deny]]")
            for kind, ones in (("allow", role.allow), ("deny", role.deny)):
                for place, rule in enumerate(ones):
                    at = f"{key}.{kind}[{place}]"
                    yield from rule.faults(at, denies=kind == "deny")
                    if rule.name is not None and rule.name in rules:
                        yield Fault(f"{at}.name", f"{rule.name!r} is the name of another rule already")
                    if rule.name is not None:
                        rules.add(rule.name)

    def _binding_faults(self) -> Iterator[Fault]:
        roles = {role.name for role in self.role} | set(BUILTIN_ROLES)
        told = 0
        for index, binding in enumerate(self.binding):
            key = f"binding[{index}]"
            if binding.role not in roles:
                close = _close(binding.role, roles) if told < MAX_FAULTS else ""  # 3 ms each, of 300 roles
                told += 1
                yield Fault(f"{key}.role", f"there is no role {binding.role!r}{close}")
            if not binding.users and not binding.groups:
                yield Fault(key, "gives the role to nobody: it needs users or groups")
            for group in binding.groups:
                if group.startswith(SYSTEM) and group not in BUILTIN_GROUPS:
                    close = _close(group, BUILTIN_GROUPS) if told < MAX_FAULTS else ""
                    told += 1
                    text = f"{group!r} is no group that is built in{close}"
                    yield Fault(f"{key}.groups", f"{text}; there are {', '.join(sorted(BUILTIN_GROUPS))}")


NO_POLICY = PolicyFile()
"""The policy of a server without a file: users may do nothing."""


def load_policy(path: Path) -> PolicyFile:
    """Reads a policy file. Blocking.

    Raises:
        ConfigError: with the faults found; its `fault` is CONFIG_UNREADABLE where there is no such file.
    """
    # Compiled, where tomllib is the same in Python: a file of 10,000 bindings is read in a third of the time.
    import tomli

    try:
        with garbage.paused():
            return load(path, PolicyFile, loads=tomli.loads)
    except ConfigError as error:
        if error.fault is not CONFIG_INVALID:
            raise
        raise ConfigError(error.faults, POLICY_INVALID) from error


def load_policy_if_any(path: Path) -> PolicyFile | None:
    """Reads a policy file; returns None when there is none. Blocking.

    Raises:
        ConfigError: there is a file, and it cannot be used.
    """
    try:
        return load_policy(path)
    except ConfigError as error:
        if error.fault is CONFIG_UNREADABLE and isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise


def first_policy(admins: Sequence[str]) -> str:
    """Returns the text of a policy file that makes these users administrators, with examples behind it."""
    users = ", ".join(f'"{name}"' for name in admins)
    return _FIRST.replace("USERS", users).replace("ADMIN", ADMIN)


# Internal


def _close(name: str, known: Iterable[str]) -> str:
    import difflib  # for the faults alone: 0.2 MB

    close = difflib.get_close_matches(name, list(known), 1)
    return f", did you mean {close[0]}?" if close else ""


_FIRST = """\
# Who may do what on this server. Whatever no rule allows is refused; a deny wins over every allow.
# Check a change with: cloud-server policy check FILE. A running server takes a good file at once.

[[binding]]                       # ADMIN may do everything, and is built in; so is viewer, who may look
role = "ADMIN"
users = [USERS]

# [[role]]
# name = "site-a-operators"
# [[role.allow]]
# agents = ["site-a-*"]
# verbs = ["get", "logs"]
# [[role.allow]]
# agents = ["site-a-*"]
# targets = ["127.0.0.1:22", "10.1.0.0/16:443"]
#
# [[binding]]
# role = "site-a-operators"
# users = ["ann"]
#
# [[test]]                        # a file that says otherwise is not taken
# user = "ann"
# agent = "site-b-1"
# target = "127.0.0.1:22"
# expect = "deny"
"""
