"""Decides which agent reaches what a client asked for.

Names come first: an agent's, a node's, a service's, one of a `[[route]]`. An address belongs to whoever claims it most
narrowly: a `[[route]]`, a node with that address, a service's cluster IP, a node's pod network; of claims that are as
narrow, the `[[route]]`. What nobody claims goes to the agents that are a default route. Between two agents with the
same claim nobody guesses: sites often use the same private addresses.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cloud_server.kubernetes.objects import Address, Key, Node, Service
from cloud_server.routing.cluster import ClusterIndex
from cloud_server.routing.names import FORMS, parse_authority
from cloud_server.routing.route import LOCALHOST, Route
from tunnel.core.errors import Code, OpenRefused
from tunnel.core.target import TcpTarget
from tunnel.core.target_rule import TargetRule, normal_address

_SERVICE_NAME = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc(\..+)?")


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
class _Claims:
    """The narrowest claims of one address that were found so far."""

    narrowness: int = -1
    agents: set[str] = field(default_factory=set)
    what: list[str] = field(default_factory=list)

    def add(self, narrowness: int, agent: str, what: str) -> None:
        if narrowness > self.narrowness:
            self.narrowness, self.agents, self.what = narrowness, set(), []
        if narrowness == self.narrowness:
            self.agents.add(agent)
            self.what.append(what)


class Router:
    """From `host:port` to the routes there."""

    def __init__(
        self,
        agents: Agents,
        policies: Sequence[RoutePolicy] = (),
        cluster: ClusterIndex | None = None,
        *,
        shuffle: Callable[[list[Route]], None] = random.shuffle,
    ) -> None:
        """`cluster`: None when there is no kubeconfig. `shuffle` spreads dials over agents that are as good."""
        self._agents = agents
        self._policies = policies
        self._agent_of_node = {node: policy.agent for policy in policies for node in policy.nodes}
        self._cluster = cluster or ClusterIndex()
        self._shuffle = shuffle

    def routes(self, authority: str) -> list[Route]:
        """The ways there, in the order to try them; at least one.

        Raises:
            OpenRefused: UNKNOWN_AGENT, nobody reaches it; AMBIGUOUS, more than one agent might be meant; UNREACHABLE,
                a service without endpoints; NOT_ALLOWED. The text says what to do.
        """
        asked = parse_authority(authority)
        if asked.route is not None:
            return [asked.route]
        if asked.address is not None:
            return self._by_address(normal_address(asked.address), asked.port)
        return self._by_name(asked.host, asked.port)

    # Internal

    def _by_name(self, host: str, port: int) -> list[Route]:
        if self._agents.is_known(host):
            return [Route(host, TcpTarget(LOCALHOST, port))]
        if nodes := self._cluster.nodes_by_host(host):
            return [self._to_node(host, nodes, port)]
        service = _SERVICE_NAME.fullmatch(host)
        if service is not None and (found := self._cluster.service(Key(service[2], service[1]))) is not None:
            return self._to_service(found, port)
        agents = {policy.agent for policy in self._policies if any(r.matches_name(host, port) for r in policy.targets)}
        if len(agents) > 1:
            raise _ambiguous(f"{host} is in the [[route]] of {_listed(agents)}", "leave it to one of them")
        if agents:
            return [Route(agents.pop(), TcpTarget(host, port))]
        return self._by_default(host, port)

    def _by_address(self, address: Address, port: int) -> list[Route]:
        service = self._cluster.service_by_address(address)
        claims = self._claims_of_policies(address, port)
        if service is not None and claims.narrowness < address.max_prefixlen:
            return self._to_service(service, port)
        if not claims.agents or claims.narrowness < address.max_prefixlen:
            self._add_claims_of_nodes(claims, address)
        if len(claims.agents) > 1:
            raise _ambiguous(
                f"{address} is {_listed(claims.what)}",
                f"dial a name, such as {min(claims.agents)}:{port} (for kube-apiserver: "
                "--kubelet-preferred-address-types=Hostname), or give it to one agent by a [[route]]",
            )
        if claims.agents:
            return [Route(claims.agents.pop(), TcpTarget(str(address), port))]
        return self._by_default(str(address), port)

    def _claims_of_policies(self, address: Address, port: int) -> _Claims:
        claims = _Claims()
        for policy in self._policies:
            for rule in policy.targets:
                if rule.network is not None and rule.matches_address(address, port):
                    claims.add(rule.network.prefixlen, policy.agent, f"in the [[route]] of {policy.agent}")
        return claims

    def _add_claims_of_nodes(self, claims: _Claims, address: Address) -> None:
        of_policies = claims.narrowness
        pods, length = self._cluster.nodes_by_pod(address)
        for nodes, narrowness, what in (
            (self._cluster.nodes_by_address(address), address.max_prefixlen, "the address of node"),
            (pods, length, "a pod of node"),
        ):
            for node in nodes:
                agent = self._agent_for(node.key.name)
                if agent is not None and narrowness > of_policies:
                    claims.add(narrowness, agent, f"{what} {node.key.name}")

    def _to_node(self, host: str, nodes: list[Node], port: int) -> Route:
        if len(nodes) > 1:
            raise _ambiguous(f"{host} names the nodes {_listed(n.key.name for n in nodes)}", "use the Node's own name")
        node = nodes[0]
        agent = self._agent_for(node.key.name)
        if agent is None:
            raise OpenRefused(
                f"no agent for node {node.key.name}: join one with that name, or name the node in a [[route]]",
                Code.UNKNOWN_AGENT,
            )
        if agent == node.key.name or not node.addresses:
            return Route(agent, TcpTarget(LOCALHOST, port))
        return Route(agent, TcpTarget(str(min(node.addresses, key=lambda a: (a.version, a))), port))

    def _to_service(self, service: Service, port: int) -> list[Route]:
        name = f"service {service.key.namespace}/{service.key.name}"
        if port not in service.ports:
            raise OpenRefused(f"{name} has no TCP port {port}", Code.UNREACHABLE)
        endpoints = self._cluster.endpoints(service, port)
        if not endpoints:
            raise OpenRefused(f"{name} has no ready endpoint", Code.UNREACHABLE)
        routes = []
        for endpoint, endpoint_port in endpoints:
            agent = self._agent_for(endpoint.node) if endpoint.node is not None else None
            if agent is not None:
                routes.append(Route(agent, TcpTarget(endpoint.address, endpoint_port)))
        if routes:
            return self._best_first(routes)
        endpoint, endpoint_port = endpoints[0]
        return self._by_default(endpoint.address, endpoint_port, f"{name} at {endpoint.address}")

    def _by_default(self, host: str, port: int, what: str = "") -> list[Route]:
        routes = [Route(policy.agent, TcpTarget(host, port)) for policy in self._policies if policy.default]
        if not routes:
            raise OpenRefused(
                f"no agent for {what or host}: it is no agent, node, service or [[route]] known here; {FORMS}",
                Code.UNKNOWN_AGENT,
            )
        return self._best_first(routes)

    def _best_first(self, routes: list[Route]) -> list[Route]:
        self._shuffle(routes)
        return sorted(routes, key=lambda route: not self._agents.is_connected(route.agent))

    def _agent_for(self, node: str) -> str | None:
        agent = self._agent_of_node.get(node)
        return agent or (node if self._agents.is_known(node) else None)


def _ambiguous(what: str, advice: str) -> OpenRefused:
    return OpenRefused(f"{what}: {advice}", Code.AMBIGUOUS)


def _listed(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))
