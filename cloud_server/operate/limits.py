"""Reads the limits of the credential that an admin call came with, and holds to them what the call makes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cloud_server.trust.caller import UNLIMITED, Scope
from tunnel.aio.operate.admin import AdminCall, AdminError
from tunnel.core.wire import faults
from tunnel.core.wire.principal import PrincipalKind

SHORTEST = timedelta(seconds=1)
"""Of what is made by a credential that ends while the call runs."""
MAKING = timedelta(seconds=5)
"""The life of what is made begins once it is kept or signed, which a busy server does a moment later."""


def scope_of(call: AdminCall) -> Scope:
    """Returns what the credential is good for; UNLIMITED where none was shown, as on the socket."""
    return scope if isinstance(scope := call.limits.get("scope"), Scope) else UNLIMITED


def check_makes_credentials(call: AdminCall) -> None:
    """Makes sure that a credential is good for making others, which have no scope: one with a scope would rid itself of
    it so.

    Raises:
        AdminError: 403, it has a scope.
    """
    if scope_of(call) != UNLIMITED:
        raise AdminError(
            403,
            f"the credential of {call.principal.name} has a scope, and what it would make had none",
            code=faults.OUT_OF_SCOPE.code,
            remedy="use a credential without a scope; GET whoami shows that of yours",
        )


def held_life(call: AdminCall, user: str, life: timedelta) -> timedelta:
    """Returns for how long a credential for a user may be good: one for the caller's own user ends with what the caller
    showed, so that whoever has stolen that has nothing longer by it.
    """
    until = call.limits.get("until")
    who = call.principal
    if not isinstance(until, datetime) or who.kind is not PrincipalKind.USER or who.name != user:
        return life
    return max(SHORTEST, min(life, until - datetime.now(UTC) - MAKING))
