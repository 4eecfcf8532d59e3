"""Asks for tests of the rights."""

from __future__ import annotations

from typing import Any

from cloud_server.rights.ask import Ask, Verb
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import TcpTarget


def user(name: str = "ann", *groups: str) -> Principal:
    return Principal(kind=PrincipalKind.USER, name=name, groups=groups)


def connect(host: str = "10.1.2.3", port: int = 443, **more: Any) -> Ask:
    """Ann connects through box-7, unless told otherwise."""
    given: dict[str, Any] = {"principal": user(), "frontend": "connect", "verb": Verb.CONNECT, "agent": "box-7"}
    return Ask(**{**given, "target": TcpTarget(host, port), **more})


def fleet(verb: Verb, **more: Any) -> Ask:
    """Ann does something at box-7 through the fleet API, unless told otherwise."""
    return Ask(**{"principal": user(), "frontend": "fleet", "agent": "box-7", **more, "verb": verb})
