"""Declares what the rights are asked: who wants to do what, at which agent, and with which credential."""

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
    """The things that can be done. The value is the word that a policy file and the admin API use."""

    CONNECT = "connect"
    """Exchange raw bytes with a target: by CONNECT, SOCKS, konnectivity, `[[forward]]` and `[[expose]]`."""
    GET = "get"
    """See a box and what it offers. List and watch are this verb too."""
    LOGS = "logs"
    EXEC = "exec"
    """Run a command in a unit. Attach is this verb too."""
    PORT_FORWARD = "port-forward"
    CP = "cp"
    """Copy files from and to a box."""
    OBSERVE = "observe"
    """See how the server stands: its status, agents, opens and events."""
    ADMINISTER = "administer"
    """Change anything that the server keeps or runs."""
    IMPERSONATE = "impersonate"
    """Act as another user or with another group."""


WITH_TARGET: Final = frozenset({Verb.CONNECT, Verb.PORT_FORWARD})
WITH_UNIT: Final = frozenset({Verb.LOGS, Verb.EXEC, Verb.CP})
WITH_ACCOUNT: Final = frozenset({Verb.EXEC, Verb.CP})
WITH_WHOM: Final = frozenset({Verb.IMPERSONATE})
"""The verbs that have a target, a unit, an account on the box, and somebody to act as. `targets`, `units`, `accounts`
and `whom` of a rule limit these verbs and no others."""
FRONTENDS: Final = ("admin", "connect", "expose", "fleet", "forward", "konnectivity", "socks")
"""The front ends, as rules and scopes name them. `admin` is the admin socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question to the rights: whether a principal may do something."""

    principal: Principal
    scope: Scope = UNLIMITED
    """The limits of the credential that was shown."""
    frontend: str
    """The front end that the question came in at, one of FRONTENDS."""
    verb: Verb
    agent: str = ""
    """The agent that it is about; empty when it is about none, as most of `observe`, `administer` and `impersonate`."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The labels of the agent, as the operator has set them; never what a box says of itself."""
    target: Target | None = None
    """The target of the verb; None for verbs that have none."""
    unit: str = ""
    """The container, such as `nginx.service` or `host`; empty where the verb has none."""
    command: tuple[str, ...] = ()
    """The command of an exec. It is there for explanations and records: no rule of the server looks at it, but rules of
    the box may."""
    whom: str = ""
    """The one who is to be impersonated, as `user:NAME` or `group:NAME`; empty for other verbs."""
