"""The configuration of the server, `cloud-server.toml`: its sections, their defaults, and what must fit together."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cloud_server.limits_config import LimitsConfig
from cloud_server.opens.expose_rule import ExposeRule
from cloud_server.routing.claims import RoutePolicy
from cloud_server.trust.oidc.settings import ALGORITHMS, DEFAULT_ALGORITHMS, DEFAULT_PREFIX, OidcSettings
from cloud_server.trust.signer import Signer
from cloud_server.trust.signing_link import AuthorityPlace
from cloud_server.trust.state_files import CA_FILE, POLICY_FILE, SERVER_FILE, SERVER_KEY_FILE
from tunnel.aio.identity.tls_material import ServerTls
from tunnel.aio.process.config import (
    AuditConfig,
    Fault,
    HostPort,
    LogConfig,
    PerSecond,
    Seconds,
    ServerAddress,
    TargetPattern,
    Validated,
    load,
)
from tunnel.core.wire.names import AGENT_NAME_RULE, is_agent_name, is_service_name
from tunnel.core.wire.target import TcpTarget

MAX_LEEWAY_S = 300.0
_ACCOUNT = re.compile(r"[a-z0-9-]{1,63}/[a-z0-9.-]{1,253}")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")


class AgentName(str):
    """The name of an agent, checked when it is read."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> AgentName:
        """Returns the agent name that a value of a configuration holds.

        Raises:
            ValueError: the value is not the name of an agent.
        """
        if not isinstance(value, str) or not is_agent_name(value):
            raise ValueError(f"{value!r} is not the name of an agent: {AGENT_NAME_RULE}")
        return cls(value)


class ServiceAccount(str):
    """A ServiceAccount of Kubernetes, as `namespace/name`."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> ServiceAccount:
        """Returns the account that a value of a configuration names.

        Raises:
            ValueError: the value names none.
        """
        if not isinstance(value, str) or not _ACCOUNT.fullmatch(value):
            raise ValueError(f"{value!r} is no ServiceAccount: write namespace/name")
        return cls(value)


class TrustDomain(str):
    """The authority part of every `spiffe://` name (SPIFFE ID 2.1)."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> TrustDomain:
        """Returns the trust domain that a value of a configuration holds.

        Raises:
            ValueError: the value is not a trust domain.
        """
        if not isinstance(value, str) or not _TRUST_DOMAIN.fullmatch(value):
            raise ValueError(f"{value!r} is not a trust domain: 1 to 255 of a-z, 0-9, '.', '-' and '_'")
        return cls(value)


DEFAULT_TRUST_DOMAIN = TrustDomain("longline")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunnelConfig:
    """The `[tunnel]` section: where agents dial in."""

    listen: list[HostPort] = dataclasses.field(default_factory=lambda: [HostPort("0.0.0.0:7443")])
    trust_domain: TrustDomain = DEFAULT_TRUST_DOMAIN
    certificate: Path | None = None
    """The file of the server's own certificate; None means the one that `cloud-server init` made in the state folder.
    For `key` and `client_ca`, None means the same.
    """
    key: Path | None = None
    client_ca: Path | None = None
    """The file of the authorities whose agents and users are known here."""
    suspect_after_s: Seconds = Seconds(10.0)
    dead_after_s: Seconds = Seconds(15.0)
    pings_per_s: PerSecond = PerSecond(75.0)
    """How many pings all idle agents together may ask for in a second: beyond 750 agents each is asked less often."""
    resume_window_s: Seconds = Seconds(120.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuthorityConfig:
    """The `[authority]` section: an authority that belongs to another account than the server's."""

    folder: Path | None = None
    """The folder with the authority's certificate, its key and `hosts`; None means the state folder."""
    signer: Path | None = None
    """The unix socket of the service that signs; None means that the server starts a process for that itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConnectConfig:
    """The `[connect]` section: HTTP CONNECT, and konnectivity's protocol on the unix socket."""

    unix: Path | None = None
    """The path of the unix socket; None means that there is none."""
    listen: HostPort | None = None
    """The address for CONNECT over TLS; None means that there is none."""
    listen_kubectl: HostPort | None = None
    """The address for CONNECT by the kubeconfigs of each `[[cluster]]`; None means that there is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SocksConfig:
    """The `[socks]` section: SOCKS5 with a user's token as the password, not encrypted."""

    listen: HostPort | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetConfig:
    """The `[fleet]` section: the Kubernetes API for boxes without Kubernetes."""

    listen: HostPort | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The `[policy]` section: who may do what."""

    file: Path | None = None
    """The policy file; None means `policy.toml` in the state folder."""


class IssuerUrl(str):
    """The URL of an issuer of ID tokens (OpenID Connect Core 2, `iss`)."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> IssuerUrl:
        """Returns the URL that a value of a configuration stands for.

        Raises:
            ValueError: the value is no https:// address of an issuer.
        """
        url = urlsplit(value) if isinstance(value, str) and value.isascii() and value.isprintable() else urlsplit("")
        if url.scheme != "https" or not url.hostname or url.query or url.fragment or "@" in url.netloc:
            raise ValueError(
                f"{value!r} is no https:// address of an issuer, such as https://id.example.com/realms/ops"
            )
        return cls(value)


class SigningAlgorithm(str):
    """An algorithm that ID tokens may be signed with, one of ALGORITHMS."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> SigningAlgorithm:
        """Returns the algorithm that a value of a configuration names.

        Raises:
            ValueError: it is not among ALGORITHMS.
        """
        if value not in ALGORITHMS:
            raise ValueError(f"{value!r} is not taken: only {', '.join(ALGORITHMS)}, whose keys can be public")
        return cls(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OidcConfig:
    """The `[oidc]` section: an issuer whose ID tokens are taken."""

    issuer: IssuerUrl | None = None
    """The URL of the issuer; None means that no ID token is taken."""
    client_id: str = ""
    """The name that `longline login` has at the issuer."""
    audiences: list[str] = dataclasses.field(default_factory=list)
    """The audiences, of which a token must be made for one; empty means `client_id` only."""
    username_claim: str = "sub"
    unverified_email: bool = False
    """Whether `username_claim = "email"` takes an address that the issuer does not say it has verified."""
    username_prefix: str = DEFAULT_PREFIX
    groups_claim: str = "groups"
    groups_prefix: str = DEFAULT_PREFIX
    required_claims: dict[str, str] = dataclasses.field(default_factory=dict)
    algorithms: list[SigningAlgorithm] = dataclasses.field(
        default_factory=lambda: [SigningAlgorithm(one) for one in DEFAULT_ALGORITHMS]
    )
    ca_file: Path | None = None
    """The file of authorities for the issuer's certificate; None means those that the system trusts."""
    leeway_s: Seconds = Seconds(10.0)
    scopes: list[str] = dataclasses.field(default_factory=lambda: ["openid", "profile", "email", "offline_access"])
    """The scopes that `longline login` asks for."""

    @property
    def settings(self) -> OidcSettings | None:
        """Returns the settings as the verifier takes them; None when no ID token is taken."""
        if self.issuer is None:
            return None
        return OidcSettings(
            issuer=str(self.issuer),
            client_id=self.client_id,
            audiences=tuple(self.audiences or [self.client_id]),
            username_claim=self.username_claim,
            unverified_email=self.unverified_email,
            username_prefix=self.username_prefix,
            groups_claim=self.groups_claim,
            groups_prefix=self.groups_prefix,
            required_claims=dict(self.required_claims),
            algorithms=tuple(self.algorithms),
            ca_file=self.ca_file,
            leeway_s=float(self.leeway_s),
            scopes=tuple(self.scopes),
        )

    def faults(self) -> Iterable[Fault]:
        """Yields what does not fit together in the section."""
        if self.issuer is None:
            if self != OidcConfig():
                yield Fault("oidc", "issuer is missing: nothing else of [oidc] means anything without it")
            return
        if not self.client_id:
            yield Fault("oidc", "client_id is missing: what the issuer calls `longline login`")
        if not self.algorithms:
            yield Fault("oidc.algorithms", "must have at least one")
        if self.leeway_s > MAX_LEEWAY_S:
            yield Fault("oidc.leeway_s", f"must be {MAX_LEEWAY_S:.0f} at most: it is for clocks that differ")
        if "openid" not in self.scopes:
            yield Fault("oidc.scopes", "must have openid: without it there is no ID token")
        for key, prefix in (("username_prefix", self.username_prefix), ("groups_prefix", self.groups_prefix)):
            if prefix.startswith("system:"):
                yield Fault(f"oidc.{key}", "must not be that of names of our own making, which no issuer gives")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForwardConfig:
    """A `[[forward]]`: a local port that leads to one target at one agent."""

    listen: HostPort
    agent: AgentName
    target: ServerAddress

    @property
    def tcp_target(self) -> TcpTarget:
        """Returns the target as a stream is opened to it."""
        return TcpTarget(self.target.host, self.target.port)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExposeConfig:
    """An `[[expose]]`: what agents may reach through this server."""

    target: TargetPattern
    name: str | None = None
    """A name for the target, which must then be one host and one port; None means no name."""
    agents: list[AgentName] = dataclasses.field(default_factory=list)
    """The agents that may reach the target; empty means all agents."""

    @property
    def rule(self) -> ExposeRule:
        """Returns the entry as the front end takes it."""
        return ExposeRule(target=self.target.rule, name=self.name, agents=frozenset(self.agents))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouteConfig:
    """A `[[route]]`: what is reached through an agent besides its own box."""

    agent: AgentName
    nodes: list[str] = dataclasses.field(default_factory=list)
    """The names of Kubernetes nodes that are reached through the agent. A node with the agent's own name is always
    reached through it.
    """
    targets: list[TargetPattern] = dataclasses.field(default_factory=list)
    default: bool = False
    """Whether the agent takes the targets that nobody else claims."""

    @property
    def policy(self) -> RoutePolicy:
        """Returns the entry as the router takes it."""
        return RoutePolicy(
            agent=self.agent,
            nodes=frozenset(self.nodes),
            targets=tuple(target.rule for target in self.targets),
            default=self.default,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A `[[cluster]]`: a site's own API server, for `cloud-server user kubeconfig --cluster`."""

    name: AgentName
    kubeconfig: Path
    """The kubeconfig as it is used at the site: with the address, the CA and, if wanted, credentials there."""
    agent: AgentName | None = None
    """The agent at the site; None means the agent of the same name as the cluster."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KubernetesConfig:
    """The `[kubernetes]` section: a cluster whose nodes, pods and services are reached through the agents."""

    kubeconfig: Path | None = None
    """The kubeconfig of the cluster; None means that there is no cluster."""
    join: list[ServiceAccount] = dataclasses.field(default_factory=list)
    """The ServiceAccounts, as `namespace/name`, whose pods join as the node that they run on, with a join token for
    that."""
    join_audience: str = "longline"
    """The audience that their tokens must be for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """The `[metrics]` section: a page for Prometheus, and for whoever restarts the server."""

    listen: HostPort | None = None
    """The address of the page, in plain HTTP; None means that there is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig(Validated):
    """The whole configuration file."""

    tunnel: TunnelConfig = dataclasses.field(default_factory=TunnelConfig)
    authority: AuthorityConfig = dataclasses.field(default_factory=AuthorityConfig)
    connect: ConnectConfig = dataclasses.field(default_factory=ConnectConfig)
    socks: SocksConfig = dataclasses.field(default_factory=SocksConfig)
    fleet: FleetConfig = dataclasses.field(default_factory=FleetConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    oidc: OidcConfig = dataclasses.field(default_factory=OidcConfig)
    forward: list[ForwardConfig] = dataclasses.field(default_factory=list)
    expose: list[ExposeConfig] = dataclasses.field(default_factory=list)
    route: list[RouteConfig] = dataclasses.field(default_factory=list)
    cluster: list[ClusterConfig] = dataclasses.field(default_factory=list)
    kubernetes: KubernetesConfig = dataclasses.field(default_factory=KubernetesConfig)
    metrics: MetricsConfig = dataclasses.field(default_factory=MetricsConfig)
    limits: LimitsConfig = dataclasses.field(default_factory=LimitsConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    audit: AuditConfig = dataclasses.field(default_factory=AuditConfig)
    state: Path | None = None
    """The folder of keys, tokens and agents; None means the folder that the configuration file is in."""
    drain_s: Seconds = Seconds(30.0)
    """How many seconds connections may go on after SIGTERM."""
    dial_timeout_s: Seconds = Seconds(10.0)
    """Seconds within which every request for a connection is answered."""

    def faults(self) -> Iterable[Fault]:
        """Yields each fault in how the settings fit together."""
        tunnel = self.tunnel
        if tunnel.suspect_after_s >= tunnel.dead_after_s:
            yield Fault("tunnel.suspect_after_s", "must be less than dead_after_s")
        if not tunnel.listen:
            yield Fault("tunnel.listen", "must have at least one address")
        own = {"certificate": tunnel.certificate, "key": tunnel.key, "client_ca": tunnel.client_ca}
        missing = [name for name, path in own.items() if path is None]
        if 0 < len(missing) < len(own):
            yield Fault("tunnel", f"{', '.join(missing)} is missing: certificate, key and client_ca go together")
        yield from self._joining_faults()
        yield from self.oidc.faults()
        yield from self.limits.faults()
        yield from self._route_faults()
        yield from self._expose_faults()
        names = [cluster.name for cluster in self.cluster]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield Fault(f"cluster[{index}].name", f"{name!r} is there already")
        seen: dict[HostPort, str] = {}
        for key, address in self.listeners():
            if address in seen:
                yield Fault(key, f"{address} is taken by {seen[address]}")
            if address.port:
                seen.setdefault(address, key)

    def _joining_faults(self) -> Iterable[Fault]:
        if (self.authority.folder is None) != (self.authority.signer is None):
            yield Fault("authority", "folder and signer go together")
        if self.authority.folder is not None and self.tunnel.client_ca is not None:
            yield Fault("authority", "there is none of ours where [tunnel] client_ca names one of your own")
        if self.kubernetes.join and self.kubernetes.kubeconfig is None:
            yield Fault("kubernetes.join", "needs kubernetes.kubeconfig: its API says which node a token is of")
        if self.kubernetes.join and not self.kubernetes.join_audience:
            yield Fault("kubernetes.join_audience", "must not be empty: any token of the account would do then")

    def _route_faults(self) -> Iterable[Fault]:
        seen: dict[str, str] = {}
        for index, route in enumerate(self.route):
            if not route.nodes and not route.targets and not route.default:
                yield Fault(f"route[{index}]", "leads nowhere: it needs nodes, targets or default = true")
            for node in route.nodes:
                if seen.setdefault(node, route.agent) != route.agent:
                    yield Fault(f"route[{index}].nodes", f"{node!r} is reached through {seen[node]} already")

    def _expose_faults(self) -> Iterable[Fault]:
        seen: set[str] = set()
        for index, one in enumerate(self.expose):
            key = f"expose[{index}].name"
            if one.name is None:
                continue
            if not is_service_name(one.name):
                yield Fault(key, f"{one.name[:80]!r} cannot name a service: {AGENT_NAME_RULE}, with a letter in it")
            elif one.name in seen:
                yield Fault(key, f"{one.name!r} is taken: each service has a name of its own")
            elif one.target.rule.single is None:
                yield Fault(key, f"needs a target of one host and one port, not {str(one.target)!r}")
            seen.add(one.name)

    def listeners(self) -> Iterator[tuple[str, HostPort]]:
        """Yields every TCP address that the server listens at, with its key in the file."""
        for index, address in enumerate(self.tunnel.listen):
            yield f"tunnel.listen[{index}]", address
        for key, listen in (
            ("connect.listen", self.connect.listen),
            ("connect.listen_kubectl", self.connect.listen_kubectl),
            ("socks.listen", self.socks.listen),
            ("fleet.listen", self.fleet.listen),
            ("metrics.listen", self.metrics.listen),
        ):
            if listen is not None:
                yield key, listen
        for index, forward in enumerate(self.forward):
            yield f"forward[{index}].listen", forward.listen


NOTHING: Final = ServerConfig()
"""The configuration that a server matches before its first one is applied."""
ONLY_AT_START: Final = (
    "tunnel", "authority", "state", "limits.orphan_s", "limits.tunnel_connections",
    "limits.agent_streams", "limits.agent_stream_memory_bytes", "log.format",
)  # fmt: skip
"""The keys and sections that only a restart of the server applies."""


def load_server_config(path: Path) -> ServerConfig:
    """Reads `cloud-server.toml`. Sets `state` to the folder of the file when the file does not say it.

    Raises:
        ConfigError: with every fault found.
    """
    config = load(path, ServerConfig)
    return dataclasses.replace(config, state=config.state or path.parent.absolute())


def state_of(config: ServerConfig) -> Path:
    """Returns the state folder, which `load_server_config` has always set."""
    assert config.state is not None
    return config.state


def authority_folder(config: ServerConfig) -> Path:
    """Returns the folder of the authority's certificate, its key and `hosts`."""
    return config.authority.folder or state_of(config)


def authority_place(config: ServerConfig) -> AuthorityPlace | None:
    """Returns where an authority of another account is; None when it is in the state folder."""
    authority = config.authority
    if authority.folder is None or authority.signer is None:
        return None
    return AuthorityPlace(authority.folder, authority.signer)


def signer_of(config: ServerConfig) -> Signer | None:
    """Returns who has certificates signed; None with an authority of the user's own."""
    if config.tunnel.client_ca is not None:
        return None
    return Signer(state_of(config), config.tunnel.trust_domain, authority_place(config))


def policy_file_of(config: ServerConfig) -> Path:
    """Returns where the policy is."""
    return config.policy.file or state_of(config) / POLICY_FILE


def tls_of(config: ServerConfig) -> ServerTls:
    """Returns the paths of the server's certificate, its key, and the authorities of its clients."""
    state, tunnel = state_of(config), config.tunnel
    return ServerTls(
        certificate=tunnel.certificate or state / SERVER_FILE,
        key=tunnel.key or state / SERVER_KEY_FILE,
        client_ca=tunnel.client_ca or authority_folder(config) / CA_FILE,
    )
