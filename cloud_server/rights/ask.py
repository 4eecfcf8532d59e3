"""What is asked of the rights: who wants to do what, where, and with which credential."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final

from cloud_server.trust.caller import UNLIMITED, Scope
from tunnel.core.wire.principal import Principal
from tunnel.core.wire.target import Target


@unique
class Verb(StrEnum):
    """What can be done."""

    CONNECT = "connect"
    """Raw bytes to a target: CONNECT, SOCKS, konnectivity, forwards, expose."""
    GET = "get"
    """See a box and what it offers; also list and watch."""
    LOGS = "logs"
    EXEC = "exec"
    """Run a command; also attach."""
    PORT_FORWARD = "port-forward"
    CP = "cp"
    """Copy files from and to a box."""
    OBSERVE = "observe"
    """See how the server stands: status, agents, opens, events."""
    ADMINISTER = "administer"
    """Change anything of the server."""
    IMPERSONATE = "impersonate"
    """Act as another user or with another group."""


WITH_TARGET: Final = frozenset({Verb.CONNECT, Verb.PORT_FORWARD})
WITH_UNIT: Final = frozenset({Verb.LOGS, Verb.EXEC, Verb.CP})
WITH_ACCOUNT: Final = frozenset({Verb.EXEC, Verb.CP})
WITH_WHOM: Final = frozenset({Verb.IMPERSONATE})
"""Which verbs have a target, a unit, an account on the box, somebody to act as: `targets`, `units`, `accounts` and
`whom` of a rule limit these and no others."""
FRONTENDS: Final = ("admin", "connect", "expose", "fleet", "forward", "konnectivity", "socks")
"""The ways in, as rules and scopes name them; `admin` is the admin socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question."""

    principal: Principal
    scope: Scope = UNLIMITED
    """Of the credential that was shown."""
    frontend: str
    """One of FRONTENDS."""
    verb: Verb
    agent: str = ""
    """Empty: it is about no agent, as most of `observe`, `administer` and `impersonate`."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the agent, as the operator has set them; never what a box says of itself."""
    target: Target | None = None
    """None for verbs that have none."""
    unit: str = ""
    """The container, such as `nginx.service` or `host`; empty where the verb has none."""
    command: tuple[str, ...] = ()
    """Of an exec, for whoever explains and records; no rule of the server looks at it, the box's own may."""
    whom: str = ""
    """Who is to be impersonated: `user:NAME` or `group:NAME`."""
