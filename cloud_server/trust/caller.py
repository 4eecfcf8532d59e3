"""Holds the caller: somebody who asks for something at a front end, with the limits of the credential that proved who
they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tunnel.core.wire.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The limits of a credential. None stands for no limit; an empty set for nothing at all."""

    frontends: frozenset[str] | None = None
    """The names of front ends that it is good for, such as `connect` and `fleet`."""
    agents: frozenset[str] | None = None
    """The names of agents that it is good for."""
    verbs: frozenset[str] | None = None
    """The verbs that it is good for, such as `exec` and `connect`."""


UNLIMITED = Scope()
"""The scope of a credential that is good for all that its principal may do."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks. It is made by `Authenticator` and nowhere else."""

    principal: Principal
    until: datetime | None = None
    """When the credential ends, in UTC; None when it does not end, or nobody showed one."""
    scope: Scope = UNLIMITED

    @property
    def name(self) -> str:
        """Returns the principal's name."""
        return self.principal.name

    def __str__(self) -> str:
        return str(self.principal)
