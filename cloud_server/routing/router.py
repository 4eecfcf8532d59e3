"""Decides which agent reaches what a client asked for.

**A name** is an agent's; a node's; a service's; one of a `[[route]]`, in this order.

**An address** belongs to the first of these that there is:

1. the `[[route]]` that has just this address;
2. the service with this cluster IP, and so to one of its endpoints;
3. who has this very address: a node, a pod, or an endpoint of a service, which says its node. A pod that ended has
   none, one that is being deleted only while no other has it, and an endpoint that is a copy of a pod counts only where
   no pod with the address is known: so of an old holder and a new one the new one has it;
4. the narrowest `[[route]]` or pod network of a node (podCIDR) around it; of two that are as narrow, the `[[route]]`.
   That networks come after pods is no detail: a CNI that hands out addresses itself keeps to no podCIDR;
5. the agents that are a default route.

**An endpoint** is reached at its own node, whatever else has its address; one whose node is not known, where its
address leads. Between two agents with the same claim nobody guesses: sites often use the same private addresses, for
nodes and for pods.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence

from cloud_server.kubernetes.objects import Address, Endpoint, Key, Node, Pod, Service, as_address
from cloud_server.routing.claims import Agents, Claimants, Claims, RoutePolicy, ambiguous
from cloud_server.routing.cluster import ClusterIndex
from cloud_server.routing.names import FORMS, SUFFIX, parse_authority
from cloud_server.routing.route import LOCALHOST, Route
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import NO_ROUTE, NODE_WITHOUT_AGENT, SERVICE_WITHOUT_ENDPOINT, SERVICE_WITHOUT_PORT
from tunnel.core.wire.names import close_name, meant
from tunnel.core.wire.target import TcpTarget
from tunnel.core.wire.target_rule import normal_address

_SERVICE_NAME = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc(\..+)?")


class Router:
    """The way from `host:port` to the routes there."""

    def __init__(
        self,
        agents: Agents,
        policies: Sequence[RoutePolicy] = (),
        cluster: ClusterIndex | None = None,
        *,
        shuffle: Callable[[list[Route]], None] = random.shuffle,
    ) -> None:
        """Routes among `agents`. `cluster` is None when there is no kubeconfig. `shuffle` spreads dials over agents
        that are as good as each other.
        """
        self._agents = agents
        self._policies = policies
        self._cluster = cluster or ClusterIndex()
        self._claimants = Claimants(agents, policies, self._cluster)
        self._shuffle = shuffle

    def routes(self, authority: str) -> list[Route]:
        """Returns the ways to what a client asked for, in the order to try them; at least one.

        Raises:
            OpenRefused: UNKNOWN_AGENT, nobody reaches it; AMBIGUOUS, more than one agent might be meant; UNREACHABLE,
                a service without endpoints; NOT_ALLOWED. The text says what to do.
        """
        asked = parse_authority(authority)
        if asked.route is not None:
            return [asked.route]
        if asked.address is not None:
            address = normal_address(asked.address)
            return self._best_first(self._by_address(address, asked.port), address.version)
        return self._best_first(self._by_name(asked.host, asked.port))

    # Internal - names

    def _by_name(self, host: str, port: int) -> list[Route]:
        if self._agents.is_known(host):
            return [Route(host, TcpTarget(LOCALHOST, port))]
        if nodes := self._cluster.nodes_by_host(host):
            return [self._to_node(host, nodes, port)]
        service = _SERVICE_NAME.fullmatch(host)
        if service is not None and (found := self._cluster.service(Key(service[2], service[1]))) is not None:
            return self._to_service(found, port)
        return self._by_name_in_policies(host, port)

    def _by_name_in_policies(self, host: str, port: int) -> list[Route]:
        agents = {policy.agent for policy in self._policies if any(r.matches_name(host, port) for r in policy.targets)}
        if len(agents) > 1:
            raise ambiguous(f"{host} is in the [[route]] of {_listed(agents)}", "leave it to one of them")
        if agents:
            return [Route(agents.pop(), TcpTarget(host, port))]
        return self._by_default(host, port)

    def _to_node(self, host: str, nodes: list[Node], port: int) -> Route:
        if len(nodes) > 1:
            raise ambiguous(f"{host} names the nodes {_listed(n.key.name for n in nodes)}", "use the Node's own name")
        node = nodes[0]
        agent = self._claimants.agent_for(node.key.name)
        if agent is None:
            raise OpenRefused(
                f"no agent for node {node.key.name}: join one with that name, or name the node in a [[route]]",
                Code.UNKNOWN_AGENT,
                NODE_WITHOUT_AGENT,
            )
        if agent == node.key.name or not node.addresses:
            return Route(agent, TcpTarget(LOCALHOST, port))
        return Route(agent, TcpTarget(str(min(node.addresses, key=lambda a: (a.version, a))), port))

    # Internal - addresses

    def _by_address(self, address: Address, port: int) -> list[Route]:
        claims = self._claimants.of_policies(address, port)
        if claims.narrowness < address.max_prefixlen:
            if (service := self._cluster.service_by_address(address)) is not None:
                return self._to_service(service, port)
            return self._by_claims(address, port, claims)
        return self._to_claimant(address, port, claims)

    def _by_claims(self, address: Address, port: int, of_policies: Claims, what: str = "") -> list[Route]:
        """Returns the routes to an address that is no service's, and in no `[[route]]` of its own; `what` says for
        people what it is.
        """
        holders = self._claimants.of_holders(address)
        if holders.agents == {None}:
            # Not the pod network around it: this pod is elsewhere.
            return self._to_claimant(address, port, of_policies, f"{what or address}, {holders.listed()}")
        if holders.agents:
            return self._to_claimant(address, port, holders)
        return self._to_claimant(address, port, self._claimants.of_networks(address, of_policies), what)

    def _to_claimant(self, address: Address, port: int, claims: Claims, what: str = "") -> list[Route]:
        if len(claims.agents) > 1:
            raise ambiguous(f"{address} is {claims.listed()}", _advice(address, port, claims))
        for agent in claims.agents:
            if agent is not None:
                return [Route(agent, TcpTarget(str(address), port))]
        return self._by_default(str(address), port, what)

    # Internal - services

    def _to_service(self, service: Service, port: int) -> list[Route]:
        name = f"service {service.key.namespace}/{service.key.name}"
        if port not in service.ports:
            raise OpenRefused(f"{name} has no TCP port {port}", Code.UNREACHABLE, SERVICE_WITHOUT_PORT)
        endpoints = self._cluster.endpoints(service, port)
        if not endpoints:
            raise OpenRefused(f"{name} has no ready endpoint", Code.UNREACHABLE, SERVICE_WITHOUT_ENDPOINT)
        routes: list[Route] = []
        first: OpenRefused | None = None
        for endpoint, endpoint_port in endpoints:
            try:
                routes += self._to_endpoint(endpoint, endpoint_port, f"{name} at {endpoint.addresses[0]}")
            except OpenRefused as refused:
                first = first or refused
        if first is not None and not routes:
            raise first
        return list(dict.fromkeys(routes))  # while slices are rearranged, an endpoint may be in two

    def _to_endpoint(self, endpoint: Endpoint, port: int, what: str) -> list[Route]:
        host = endpoint.addresses[0]
        agent = self._claimants.agent_for(endpoint.node) if endpoint.node is not None else None
        if agent is not None:
            return [Route(agent, TcpTarget(host, port))]
        address = as_address(host)
        if address is None:  # not an agent's or a node's name: whoever wrote it may not say that
            return self._by_name_in_policies(host, port)
        claims = self._claimants.of_policies(address, port)
        if endpoint.node is None and claims.narrowness < address.max_prefixlen:
            return self._by_claims(address, port, claims, what)
        at = f"{what}, on node {endpoint.node}" if endpoint.node is not None else what
        return self._to_claimant(address, port, claims, at)

    # Internal - the rest

    def _by_default(self, host: str, port: int, what: str = "") -> list[Route]:
        routes = [Route(policy.agent, TcpTarget(host, port)) for policy in self._policies if policy.default]
        if routes:
            return routes
        if what:
            raise OpenRefused(
                f"no agent for {what}: join one with the node's name, or name the node or the address in a [[route]]",
                Code.UNKNOWN_AGENT,
                NO_ROUTE,
            )
        hint = "" if self._cluster.may_read(Pod) else "; pods are not known: the account may not list and watch them"
        # One slip makes no agent's name of what has more: a domain, an address. To try them all costs up to 2 ms.
        may_be_agent = host.count(".") + host.count(":") < 2
        close = meant(close_name(host, self._agents.is_known) if may_be_agent else None)
        raise OpenRefused(
            f"no agent for {host}{close or ':'} it is no agent, node, pod, service or [[route]] known here{hint};"
            f" {FORMS}",
            Code.UNKNOWN_AGENT,
            NO_ROUTE,
        )

    def _best_first(self, routes: list[Route], version: int = 0) -> list[Route]:
        """Returns routes in any order, except that those whose agent is connected come first, and of them those of an
        IP version; 0 means any version.
        """
        if len(routes) < 2:
            return routes
        self._shuffle(routes)

        def worse(route: Route) -> tuple[bool, bool]:
            of_version = isinstance(route.target, TcpTarget) and (":" in route.target.host) == (version == 6)
            return not self._agents.is_connected(route.agent), bool(version) and not of_version

        return sorted(routes, key=worse)


def _advice(address: Address, port: int, claims: Claims) -> str:
    agent = min(agent for agent in claims.agents if agent is not None)
    if claims.of_pods:
        behind = str(address).replace(":", "-")
        dial = f"dial {behind}.{agent}{SUFFIX}:{port}, or a service of it by cluster IP or name"
    else:
        dial = f"dial a name, such as {agent}:{port} (for kube-apiserver: --kubelet-preferred-address-types=Hostname)"
    return f"{dial}, or give it to one agent by a [[route]]"


def _listed(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))
