"""Finds who claims an address: `[[route]]`s that have it, nodes that have it or a pod with it, nodes' pod networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cloud_server.kubernetes.objects import Address, Key
from cloud_server.routing.cluster import ClusterIndex
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target_rule import TargetRule

MAX_LISTED = 3
"""How many claims a text names; one address may be that of a thousand sites."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePolicy:
    """The rule of a `[[route]]`: what the operator says one agent reaches."""

    agent: str
    nodes: frozenset[str] = frozenset()
    """The names of Nodes that are reached through the agent; a Node with the agent's own name always is."""
    targets: tuple[TargetRule, ...] = ()
    default: bool = False
    """Whether the agent takes what nobody claims."""


class Agents(Protocol):
    """The agents that there are, as routing needs to know them."""

    def is_known(self, name: str) -> bool:
        """Returns whether an agent of that name has joined or is connected."""
        ...

    def is_connected(self, name: str) -> bool:
        """Returns whether an agent's link is up."""
        ...


@dataclass(slots=True)
class Claims:
    """The narrowest claims of one address."""

    narrowness: int = -1
    """The prefix length of the claims; that of a whole address for who has it; -1 when there are no claims."""
    agents: set[str | None] = field(default_factory=set)
    """The agents that claim it; None among them stands for a node that has no agent: a pod there is none of anybody
    else's.
    """
    what: list[str] = field(default_factory=list)
    """The claims for people, such as `a pod of node site-a`."""
    of_pods: bool = False
    """Whether one of the claims is a pod's, which has no name that it could be dialled by."""

    def add(self, narrowness: int, agent: str | None, what: str, *, of_pod: bool = False) -> None:
        """Adds a claim, which counts if it is as narrow as the others, or narrower."""
        if narrowness > self.narrowness:
            self.narrowness, self.agents, self.what, self.of_pods = narrowness, set(), [], False
        if narrowness == self.narrowness:
            self.agents.add(agent)
            self.what.append(what)
            self.of_pods |= of_pod

    def listed(self) -> str:
        """Returns all claims as a text for people; beyond MAX_LISTED they are counted."""
        said = sorted(set(self.what))
        more = [f"{len(said) - MAX_LISTED} more"] if len(said) > MAX_LISTED else []
        return " and ".join(said[:MAX_LISTED] + more)


class Claimants:
    """The search for claims of an address."""

    def __init__(self, agents: Agents, policies: Sequence[RoutePolicy], cluster: ClusterIndex) -> None:
        self._agents = agents
        self._policies = policies
        self._agent_of_node = {node: policy.agent for policy in policies for node in policy.nodes}
        self._cluster = cluster

    def agent_for(self, node: str) -> str | None:
        """Returns the agent that reaches a node; None when there is none."""
        agent = self._agent_of_node.get(node)
        return agent or (node if self._agents.is_known(node) else None)

    def of_policies(self, address: Address, port: int) -> Claims:
        """Returns the claims of the narrowest `[[route]]`s that have an address."""
        claims = Claims()
        for policy in self._policies:
            for rule in policy.targets:
                if rule.network is not None and rule.matches_address(address, port):
                    claims.add(rule.network.prefixlen, policy.agent, f"in the [[route]] of {policy.agent}")
        return claims

    def of_holders(self, address: Address) -> Claims:
        """Returns the claims of those who have this very address: nodes that have an agent, pods, and what endpoints
        say of either.

        An endpoint of a pod is a copy, made a moment later: it counts only where no pod is known that has the address.
        """
        whole = address.max_prefixlen
        claims = Claims()
        for node in self._cluster.nodes_by_address(address):
            if (agent := self.agent_for(node.key.name)) is not None:
                claims.add(whole, agent, f"the address of node {node.key.name}")
        pods = self._cluster.pods_by_address(address)
        for pod in pods:
            claims.add(whole, self.agent_for(pod.node), f"a pod of node {pod.node}", of_pod=True)
        for one, endpoint in self._cluster.endpoints_by_address(address):
            if endpoint.node is not None and not (pods and endpoint.of_pod):
                of = f"service {_name(one.service)}" if one.service.name else f"endpointslice {_name(one.key)}"
                what = f"an endpoint of {of} on node {endpoint.node}"
                claims.add(whole, self.agent_for(endpoint.node), what, of_pod=True)
        return claims

    def of_networks(self, address: Address, than: Claims) -> Claims:
        """Returns the claims of the nodes with the narrowest pod network around an address, if that is narrower than
        other claims; else those other claims.
        """
        nodes, length = self._cluster.nodes_by_network(address)
        claims = Claims()
        for name, agent in self._with_agents(node.key.name for node in nodes):
            claims.add(length, agent, f"in the pod network of node {name}")
        return claims if claims.narrowness > than.narrowness else than

    # Internal

    def _with_agents(self, nodes: Iterator[str]) -> Iterator[tuple[str, str]]:
        for name in nodes:
            if (agent := self.agent_for(name)) is not None:
                yield name, agent


def _name(key: Key) -> str:
    return f"{key.namespace}/{key.name}"


def ambiguous(what: str, advice: str) -> OpenRefused:
    """Returns the refusal of an address that more than one agent claims, since nobody guesses between them."""
    return OpenRefused(f"{what}: {advice}", Code.AMBIGUOUS)
