"""Holds the caller: somebody who asks for something at a front end, with the limits of their credential."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from tunnel.core.wire.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The limits of a credential. None stands for no limit; an empty set for nothing at all."""

    frontends: frozenset[str] | None = None
    """The names of front ends that it is good for, such as `connect` and `fleet`."""
    agents: frozenset[str] | None = None
    """The agents that it is good for: globs over names, or `label=value` of labels that the operator has set."""
    verbs: frozenset[str] | None = None
    """The verbs that it is good for, such as `exec` and `connect`."""
    targets: frozenset[str] | None = None
    """The targets that it is good for, written as in the policy file, such as `10.0.0.0/8:443`."""


class ShownKind(Enum):
    """What a user can show; the value is the word for it in texts."""

    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105 - a word
    ID_TOKEN = "ID token"  # noqa: S105 - likewise


class Shown(NamedTuple):
    """What a caller showed, so that it can be checked again."""

    kind: ShownKind
    key: str
    """Of its record: a token's SHA-256, or a certificate's serial. Of an ID token its proof, for there is no record."""
    made: datetime | None
    """When it was made, or the login that it was got with; None when that is not known."""
    issued_groups: tuple[str, ...] = ()
    """The groups that the issuer of an ID token gave; empty for everything else."""


UNLIMITED = Scope()
"""The scope of a credential that is good for all that its principal may do."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks. It is made by `Authenticator` and nowhere else."""

    principal: Principal
    until: datetime | None = None
    """When the credential ends, in UTC; None when it does not end, or nobody showed one."""
    scope: Scope = UNLIMITED
    by: Principal | None = None
    """Who acts as this principal, and has shown the credential; None when it is the principal itself."""
    shown: Shown | None = field(default=None, compare=False, repr=False)
    """None for whoever is no user; of a user who is acted as, what the one who acts showed."""

    @property
    def name(self) -> str:
        """Returns the principal's name."""
        return self.principal.name

    def __str__(self) -> str:
        return str(self.principal)
