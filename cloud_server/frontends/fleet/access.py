"""Decides who may do what at the fleet API. Requests and `kubectl auth can-i` ask the rights here and nowhere else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from cloud_server.frontends.fleet.actions import (
    PATH_VERBS,
    Action,
    action_of,
    is_known_path,
    not_offered,
    verb_of,
)
from cloud_server.frontends.fleet.kubelet import FRONTEND
from cloud_server.frontends.fleet.refusals import forbidden, refused
from cloud_server.frontends.fleet.resources import Resource, find_in_group
from cloud_server.frontends.fleet.routes import ResourceRequest
from cloud_server.frontends.fleet.sight import Sight, Visible, sight_changed
from cloud_server.opens.policy import DoorPolicy
from cloud_server.rights.ask import Ask, Verb
from cloud_server.rights.engine import Decision
from cloud_server.rights.possible import Possibility, possible
from cloud_server.rights.scopes import SCOPE_RULE
from cloud_server.trust.caller import Caller, Scope
from tunnel.core.wire.principal import Principal
from tunnel.kubeapi.status import ApiError, about
from tunnel.kubeapi.store import ObjectStore

LABELS_SETTLE_S = 0.5
"""Seconds for which more changes of labels are waited for before watches go by them: a script sets those of a thousand
boxes at once, and each watch looks at all boxes again."""
REMEMBERED = 16
"""The changes of labels that are remembered. A watch that has missed more of them looks at all boxes, as after a change
of the policy."""
STRANGERS = ("", "system:anonymous")
ABOUT_ONESELF = Possibility(True, "everybody", "whoever has a credential may ask about themselves")
_IMPERSONATED = {"users": "user", "groups": "group"}
_NO_LABELS: Mapping[str, str] = {}

AgentOf = Callable[[Action], str]
"""A function that returns the box that a named object belongs to, or would belong to; empty for an object that belongs
to none."""


class Access:
    """Asks the rights of the moment, for everything that the fleet API does."""

    def __init__(
        self, policy: DoorPolicy, agent_of: AgentOf, agents: Callable[[], Iterable[str]], store: ObjectStore
    ) -> None:
        """Starts with the present rights. `agents` returns the names of all boxes.

        The version of `store` is counted up when the rights change.
        """
        self.policy = policy
        self._agent_of = agent_of
        self._agents = agents
        self._store = store
        self._generation = 0
        self._changed_at = 0
        self._relabelled: dict[str, None] = {}
        self._labels: deque[tuple[int, Iterable[str]]] = deque(maxlen=REMEMBERED)
        """The boxes that got other labels, by the generation, for those generations in which nothing but labels
        changed."""
        self._settling: asyncio.TimerHandle | None = None

    # Public - decisions

    def possible(self, who: Principal, scope: Scope, action: Action, owner: str = "") -> Possibility:
        """Returns whether something may be done; of what is done to no named object, whether it may be to some.

        `owner`: the box that the object is of, where the answer is not shown to whoever is not to know that; empty:
        the answer may be shown, and of a pod whose box is hidden it is that of a pod that is not there.
        """
        if who.name in STRANGERS and not who.groups:
            return _no("only users with a client certificate or a token may do anything")
        if "*" in (action.verb, action.group, action.resource):
            # Somebody who asks so wants to know whether nothing is out of reach; most verbs are.
            return _no("the fleet API offers some verbs on some resources: see kubectl auth can-i --list")
        if not action.resource:
            if is_known_path(action.path) and action.verb in PATH_VERBS:
                return Possibility(True, "everybody", "it says nothing of any box")
            return _no(f"the fleet API does not offer {action.verb} on {action.path or 'this path'}")
        if action.verb == "impersonate":
            return self._impersonation(who, scope, action)
        resource = find_in_group(action.group, action.resource)
        if resource is None:
            return _no(f"the fleet API has no {action.resource}")
        if action.verb not in resource.verbs:
            return _no(not_offered(action.verb, resource))
        return self._of_resource(who, scope, action, resource, owner)

    def check(self, caller: Caller, request: ResourceRequest) -> None:
        """Makes sure that a caller may make requests of this kind.

        Whether the objects of the request are shown is decided by `sight`, and at the door.

        Raises:
            ApiError: 403, the caller may not; 405, nobody may.
        """
        resource = request.resource
        if request.verb not in resource.verbs:
            offered = ", ".join(resource.verbs)
            text = f"the server does not allow {request.verb} on {resource.name}, only {offered}: {resource.origin}"
            raise ApiError(405, text, details=about(resource.group, resource.name, request.name))
        action = action_of(request)
        who, scope = caller.principal, caller.scope
        found = self.possible(who, scope, replace(action, name=""))
        if not found.allowed and not self._may_copy(who, scope, resource):
            raise forbidden(caller.name, action, found)

    def check_frontend(self, caller: Caller) -> None:
        """Makes sure that the credential of a caller is good for the fleet API at all.

        Raises:
            ApiError: 403, it was made for something else.
        """
        frontends = caller.scope.frontends
        if frontends is not None and FRONTEND not in frontends:
            only = ", ".join(sorted(frontends)) or "nothing"
            text = f"the credential of {caller.name} was not made for this"
            raise refused(text, Decision(False, SCOPE_RULE, f"it is good for {only} only, not for the fleet API"))

    def may_copy(self, caller: Caller, request: ResourceRequest, agent: str) -> bool:
        """Returns whether a caller may copy files of some container of a box, by the command of an exec."""
        return self._may_copy(caller.principal, caller.scope, request.resource, agent)

    def observing(self, caller: Caller) -> Decision:
        """Returns the decision whether a caller may follow how the server stands."""
        return self.policy.rights.decide(self._ask(caller.principal, caller.scope, Verb.OBSERVE))

    # Public - what is seen

    def sight(self, caller: Caller) -> Sight:
        """Returns which boxes a caller is shown."""

        def find() -> Visible | None:
            by = caller.by
            principal, scope = caller.principal, caller.scope
            if by is not None and not self.policy.acting(by, scope, FRONTEND, caller.name, principal.groups).allowed:
                return _nothing
            return self.policy.rights.agents_visible(principal, scope, FRONTEND)

        return Sight(find, self.policy.labels_of)

    def changed(self) -> None:
        """Tells that the rights have changed. Watches that show what they should not, or less than they may, end."""
        self._generation += 1
        self._store.step()
        self._changed_at = self._store.version

    def relabelled(self, agent: str) -> None:
        """Tells that the labels of a box have changed, which rights may be about.

        Watches go by them after LABELS_SETTLE_S.
        """
        self._relabelled[agent] = None
        self._store.step()  # what is listed from now on is listed by them
        self._changed_at = self._store.version
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(LABELS_SETTLE_S, self._settled)

    def following(self, sight: Sight, after: int | None) -> Callable[[], None]:
        """Returns a function that a watch must call before it sends anything.

        It raises ApiError 410 once the client must list again.

        `after` is the version that the client has; None when it is sent everything that there is.
        """
        sight.look(self._agents())
        generation = self._generation
        is_stale = after is not None and after < self._changed_at

        def check() -> None:
            nonlocal generation
            if is_stale:
                raise sight_changed()
            if generation == self._generation:
                return
            agents = self._relabelled_since(generation)
            generation = self._generation
            if sight.renew() if agents is None else sight.relabel(agents):
                raise sight_changed()

        return check

    # Internal

    def _settled(self) -> None:
        self._settling = None
        agents, self._relabelled = self._relabelled, {}
        self.changed()
        self._labels.append((self._generation, agents))

    def _relabelled_since(self, generation: int) -> set[str] | None:
        """Returns the boxes that got other labels since a generation; None when more than labels has changed since, or
        it is too long ago.
        """
        later = [agents for number, agents in self._labels if number > generation]
        return set().union(*later) if len(later) == self._generation - generation else None

    def _of_resource(self, who: Principal, scope: Scope, action: Action, resource: Resource, owner: str) -> Possibility:
        verb = verb_of(resource)
        if verb is None:
            return ABOUT_ONESELF
        agent = owner or (self._told_agent(who, scope, action) if action.name else "")
        if verb is Verb.ADMINISTER and not agent and resource.kind != "Pod":
            decision = self.policy.rights.decide(self._ask(who, scope, verb))
            return Possibility(decision.allowed, decision.rule, decision.reason)
        found = possible(self.policy.rights, self._ask(who, scope, verb, agent))
        if not found.allowed and self._may_copy(who, scope, resource, agent):
            return found._replace(reason=f"{found.reason}, but files may be copied (kubectl cp)".lstrip(", "))
        return found

    def _told_agent(self, who: Principal, scope: Scope, action: Action) -> str:
        """The box that an answer about an object may be about, and name."""
        agent = self._agent_of(action)
        if agent == action.name or action.resource.partition("/")[0] != "pods":
            return agent  # it is told by the object's name alone
        visible = self.policy.rights.agents_visible(who, scope, FRONTEND)
        return agent if visible is None or visible(agent, self.policy.labels_of(agent)) else action.name

    def _may_copy(self, who: Principal, scope: Scope, resource: Resource, agent: str = "") -> bool:
        return (
            resource.subresource == "exec"
            and possible(self.policy.rights, self._ask(who, scope, Verb.CP, agent)).allowed
        )

    def _impersonation(self, who: Principal, scope: Scope, action: Action) -> Possibility:
        kind = _IMPERSONATED.get(action.resource)
        if action.group or kind is None:
            return _no(f"the fleet API lets nobody impersonate {action.resource}")
        ask = self._ask(who, scope, Verb.IMPERSONATE)
        if not action.name:
            return possible(self.policy.rights, ask)
        decision = self.policy.rights.decide(replace(ask, whom=f"{kind}:{action.name}"))
        return Possibility(decision.allowed, decision.rule, decision.reason)

    def _ask(self, who: Principal, scope: Scope, verb: Verb, agent: str = "") -> Ask:
        labels = self.policy.labels_of(agent) if agent else _NO_LABELS
        return Ask(principal=who, scope=scope, frontend=FRONTEND, verb=verb, agent=agent, labels=labels)


# Internal


def _no(reason: str) -> Possibility:
    return Possibility(False, "fleet API", reason)


def _nothing(_agent: str, _labels: Mapping[str, str]) -> bool:
    return False
