"""Somebody who asks for something at a front end, with the limits of the credential that proved who they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from types import MappingProxyType

from tunnel.core.wire.principal import Principal
from tunnel.core.wire.target import Target

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a credential is good for. None stands for no limit; an empty set for nothing at all."""

    frontends: frozenset[str] | None = None
    """Names of front ends, such as `connect` and `fleet`."""
    agents: frozenset[str] | None = None
    """Globs of agents' names, or `label=value` of the labels that the operator gave them."""
    verbs: frozenset[str] | None = None
    """Such as `exec` and `connect`."""
    targets: frozenset[str] | None = None
    """`host:port`, as the one who asks writes it."""

    def reaches(self, frontend: str, verb: str) -> bool:
        """Returns whether the credential is good for a verb at a front end, with some agent and some target."""
        return (self.frontends is None or frontend in self.frontends) and (self.verbs is None or verb in self.verbs)

    def covers(
        self,
        frontend: str,
        verb: str,
        agent: str = "",
        labels: Mapping[str, str] = _NO_LABELS,
        target: Target | None = None,
    ) -> bool:
        """Returns whether the credential is good for one thing.

        Args:
            frontend: the way in, such as `connect`.
            verb: what is to be done.
            agent: with which agent; empty for what is about none, or all: no limit to agents covers that.
            labels: that the operator gave the agent.
            target: at which address; None for what has none: no limit to targets covers that.
        """
        return (
            self.reaches(frontend, verb)
            and (self.agents is None or (bool(agent) and any(_fits(one, agent, labels) for one in self.agents)))
            and (self.targets is None or (target is not None and str(target).lower() in self.targets))
        )


UNLIMITED = Scope()
"""Good for all that its principal may do."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Made by `Authenticator` and nowhere else."""

    principal: Principal
    until: datetime | None = None
    """When the credential ends, in UTC; None when it does not end, or nobody showed one."""
    scope: Scope = UNLIMITED

    @property
    def name(self) -> str:
        """The principal's name."""
        return self.principal.name

    def __str__(self) -> str:
        return str(self.principal)


def _fits(pattern: str, agent: str, labels: Mapping[str, str]) -> bool:
    name, is_label, value = pattern.partition("=")
    return labels.get(name) == value if is_label else fnmatchcase(agent, pattern)
