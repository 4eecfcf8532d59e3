"""Makes the refusals for want of a right, in the words of a Kubernetes API server, with the rule that decided."""

from __future__ import annotations

from typing import Protocol

from cloud_server.frontends.fleet.actions import Action
from cloud_server.frontends.fleet.causes import cause
from cloud_server.rights.scopes import SCOPE_RULE
from tunnel.core.wire.faults import NOT_ALLOWED, OUT_OF_SCOPE
from tunnel.kubeapi.status import ApiError, Json, about

RULE = "Rule"
"""The reason of the entry in `details.causes` whose message is the rule's name."""


class Decided(Protocol):
    """A decision or a possibility: anything that has a rule and a reason."""

    @property
    def rule(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102


def why(decided: Decided) -> str:
    """Returns the rule and the reason of a decision as one text."""
    return f"{decided.rule}: {decided.reason}" if decided.reason else decided.rule


def forbidden(user: str, action: Action, decided: Decided) -> ApiError:
    """Returns the 403 for an action that a user may not do."""
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
    """Returns the 403 for what is no action on a resource."""
    return ApiError(403, f"{text}: {why(decided)}", details=causes(decided))


def causes(decided: Decided) -> Json:
    """Returns the part of `details` that names the rule which decided."""
    fault = OUT_OF_SCOPE if decided.rule == SCOPE_RULE else NOT_ALLOWED
    return {"causes": [cause(fault)._asdict(), {"reason": RULE, "message": decided.rule}]}
