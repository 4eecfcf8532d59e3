"""Who claims an address: `[[route]]`s that have it, nodes that have it or a pod with it, nodes' pod networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cloud_server.kubernetes.objects import Address, Key
from cloud_server.routing.cluster import ClusterIndex
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target_rule import TargetRule

MAX_LISTED = 3
"""Claims that a text names; one address may be that of a thousand sites."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePolicy:
    """What the operator says one agent reaches: a `[[route]]`."""

    agent: str
    nodes: frozenset[str] = frozenset()
    """Names of Nodes that are reached through it; a Node with the agent's own name always is."""
    targets: tuple[TargetRule, ...] = ()
    default: bool = False
    """Whether it takes what nobody claims."""


class Agents(Protocol):
    """Which agents there are."""

    def is_known(self, name: str) -> bool:
        """Whether an agent of that name has joined or is connected."""
        ...

    def is_connected(self, name: str) -> bool:
        """Whether its link is up."""
        ...


@dataclass(slots=True)
class Claims:
    """The narrowest claims of one address."""

    narrowness: int = -1
    """The length of their prefix; that of a whole address for who has it; -1 for none at all."""
    agents: set[str | None] = field(default_factory=set)
    """None for a node that has no agent: a pod there is none of anybody else's."""
    what: list[str] = field(default_factory=list)
    """For people, such as `a pod of node site-a`."""
    of_pods: bool = False
    """Whether one of them is a pod's, which has no name that it could be dialled by."""

    def add(self, narrowness: int, agent: str | None, what: str, *, of_pod: bool = False) -> None:
        """One more; it counts if it is as narrow as the others, or narrower."""
        if narrowness > self.narrowness:
            self.narrowness, self.agents, self.what, self.of_pods = narrowness, set(), [], False
        if narrowness == self.narrowness:
            self.agents.add(agent)
            self.what.append(what)
            self.of_pods |= of_pod

    def listed(self) -> str:
        """They all, for people."""
        said = sorted(set(self.what))
        more = [f"{len(said) - MAX_LISTED} more"] if len(said) > MAX_LISTED else []
        return " and ".join(said[:MAX_LISTED] + more)


class Claimants:
    """Looks for claims of an address."""

    def __init__(self, agents: Agents, policies: Sequence[RoutePolicy], cluster: ClusterIndex) -> None:
        self._agents = agents
        self._policies = policies
        self._agent_of_node = {node: policy.agent for policy in policies for node in policy.nodes}
        self._cluster = cluster

    def agent_for(self, node: str) -> str | None:
        """The agent that reaches a node; None when there is none."""
        agent = self._agent_of_node.get(node)
        return agent or (node if self._agents.is_known(node) else None)

    def of_policies(self, address: Address, port: int) -> Claims:
        """The narrowest `[[route]]`s that have it."""
        claims = Claims()
        for policy in self._policies:
            for rule in policy.targets:
                if rule.network is not None and rule.matches_address(address, port):
                    claims.add(rule.network.prefixlen, policy.agent, f"in the [[route]] of {policy.agent}")
        return claims

    def of_holders(self, address: Address) -> Claims:
        """Who has this very address: nodes that have an agent, pods, and what endpoints say of either.

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
        """The nodes with the narrowest pod network around it, if that is narrower than other claims; else those."""
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
    """Nobody guesses."""
    return OpenRefused(f"{what}: {advice}", Code.AMBIGUOUS)
