"""Checks an ask against the scope of a credential. A scope takes away from what the user may do, and never adds."""

from __future__ import annotations

from functools import lru_cache

from cloud_server.rights.ask import WITH_TARGET
from cloud_server.rights.patterns import Globs, TargetPattern
from cloud_server.rights.rules import Asked
from cloud_server.trust.caller import UNLIMITED, Scope

SCOPE_RULE = "scope of the credential"
_KEPT = 4096
"""The most compiled scopes that are kept. Each belongs to one credential; to compile one anew costs some
microseconds."""


class CompiledScope:
    """A scope that is compiled for asks."""

    __slots__ = ("_agents", "_labels", "_scope", "_targets")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        agents = scope.agents or frozenset()
        self._agents = Globs(sorted(entry for entry in agents if "=" not in entry))
        self._labels = tuple(tuple(entry.split("=", 1)) for entry in sorted(agents) if "=" in entry)
        self._targets = tuple(map(TargetPattern, sorted(scope.targets or ())))

    def refusal(self, asked: Asked) -> str:
        """Returns why the credential is not good for an ask, as a sentence; empty when it is good."""
        scope, ask = self._scope, asked.ask
        if scope.frontends is not None and ask.frontend not in scope.frontends:
            return f"the credential is good at {_listed(scope.frontends)} only, not at {ask.frontend}"
        if scope.verbs is not None and ask.verb not in scope.verbs:
            return f"the credential is good for {_listed(scope.verbs)} only, not for {ask.verb}"
        if scope.agents is not None and not (
            self._agents.match(ask.agent) or any(ask.labels.get(label) == value for label, value in self._labels)
        ):
            return f"the credential is good for {_listed(scope.agents)} only"
        if scope.targets is None or ask.verb not in WITH_TARGET:
            return ""
        if asked.aim is None or not any(pattern.covers(asked.aim) for pattern in self._targets):
            return f"the credential is good for {_listed(scope.targets)} only"
        return ""


def scope_refusal(scope: Scope, asked: Asked) -> str:
    """Returns why a scope does not cover an ask, as a sentence; empty when it does."""
    return "" if scope is UNLIMITED else _compiled(scope).refusal(asked)


# Internal


@lru_cache(maxsize=_KEPT)
def _compiled(scope: Scope) -> CompiledScope:
    return CompiledScope(scope)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)[:8]) or "nothing"
