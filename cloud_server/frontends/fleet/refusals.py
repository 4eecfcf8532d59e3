"""Refusals for want of a right, in the words that a Kubernetes API server has for them, with the rule that decided."""

from __future__ import annotations

from typing import Protocol

from cloud_server.frontends.fleet.actions import Action
from cloud_server.frontends.fleet.causes import cause
from cloud_server.rights.scopes import SCOPE_RULE
from tunnel.core.wire.faults import NOT_ALLOWED, OUT_OF_SCOPE
from tunnel.kubeapi.status import ApiError, Json, about

RULE = "Rule"
"""The entry of `details.causes` that has the rule's name as its message."""


class Decided(Protocol):
    """A decision, or what is said of a possibility."""

    @property
    def rule(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102


def why(decided: Decided) -> str:
    """Returns what a decision says, in one piece of text."""
    return f"{decided.rule}: {decided.reason}" if decided.reason else decided.rule


def forbidden(user: str, action: Action, decided: Decided) -> ApiError:
    """Makes the 403 for something that a user may not do."""
    resource = action.resource.partition("/")[0]
    what = f"{resource}.{action.group}" if action.group else resource
    named = f' "{action.name}"' if action.name else ""
    where = f'in the namespace "{action.namespace}"' if action.namespace else "at the cluster scope"
    text = (
        f'{what}{named} is forbidden: User "{user}" cannot {action.verb} resource "{action.resource}" in API group'
        f' "{action.group}" {where}: {why(decided)}'
    )
    return ApiError(403, text, details={**about(action.group, resource, action.name), **causes(decided)})


def refused(text: str, decided: Decided) -> ApiError:
    """Makes the 403 for what is no resource."""
    return ApiError(403, f"{text}: {why(decided)}", details=causes(decided))


def causes(decided: Decided) -> Json:
    """Returns the part of `details` that says by which rule it was."""
    fault = OUT_OF_SCOPE if decided.rule == SCOPE_RULE else NOT_ALLOWED
    return {"causes": [cause(fault)._asdict(), {"reason": RULE, "message": decided.rule}]}
