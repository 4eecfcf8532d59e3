"""cloud-server.toml."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from tunnel.aio.config import Fault, HostPort, LogConfig, Seconds, Validated, load
from tunnel.core.names import AGENT_NAME_RULE, is_agent_name
from tunnel.core.target import TcpTarget


class AgentName(str):
    """The name of an agent."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> AgentName:
        """Check a value of a configuration."""
        if not isinstance(value, str) or not is_agent_name(value):
            raise ValueError(f"{value!r} is not the name of an agent: {AGENT_NAME_RULE}")
        return cls(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunnelConfig:
    """The `[tunnel]` section: where agents dial in."""

    listen: list[HostPort] = dataclasses.field(default_factory=lambda: [HostPort("0.0.0.0:7443")])
    trust_domain: str = "longline"
    certificate: Path | None = None
    """The server's own certificate; None: made by `cloud-server init` in the state folder. The same for the next
    two.
    """
    key: Path | None = None
    client_ca: Path | None = None
    """Authorities whose agents and users are known here."""
    suspect_after_s: Seconds = Seconds(10.0)
    dead_after_s: Seconds = Seconds(15.0)
    resume_window_s: Seconds = Seconds(120.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConnectConfig:
    """The `[connect]` section: HTTP CONNECT."""

    unix: Path | None = None
    """Path of the unix socket; None: there is none."""
    listen: HostPort | None = None
    """Address for CONNECT over TLS; None: there is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetConfig:
    """The `[fleet]` section: the Kubernetes API for boxes without Kubernetes."""

    listen: HostPort | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForwardConfig:
    """A `[[forward]]`: a local port that leads to one target at one agent."""

    listen: HostPort
    agent: AgentName
    target: HostPort

    @property
    def tcp_target(self) -> TcpTarget:
        """The target as a stream is opened to it."""
        return TcpTarget(self.target.host, self.target.port)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig(Validated):
    """The whole file."""

    tunnel: TunnelConfig = dataclasses.field(default_factory=TunnelConfig)
    connect: ConnectConfig = dataclasses.field(default_factory=ConnectConfig)
    fleet: FleetConfig = dataclasses.field(default_factory=FleetConfig)
    forward: list[ForwardConfig] = dataclasses.field(default_factory=list)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    state: Path | None = None
    """Folder of keys, tokens and agents; None: the folder of the file."""
    drain_s: Seconds = Seconds(30.0)
    """How long connections may go on after SIGTERM."""
    dial_timeout_s: Seconds = Seconds(10.0)
    """Within which every request for a connection is answered."""

    def faults(self) -> Iterable[Fault]:
        """What does not fit together."""
        tunnel = self.tunnel
        if tunnel.suspect_after_s >= tunnel.dead_after_s:
            yield Fault("tunnel.suspect_after_s", "must be less than dead_after_s")
        if not tunnel.listen:
            yield Fault("tunnel.listen", "must have at least one address")
        own = {"certificate": tunnel.certificate, "key": tunnel.key, "client_ca": tunnel.client_ca}
        missing = [name for name, path in own.items() if path is None]
        if 0 < len(missing) < len(own):
            yield Fault("tunnel", f"{', '.join(missing)} is missing: certificate, key and client_ca go together")
        for index, forward in enumerate(self.forward):
            if forward.target.port == 0:
                yield Fault(f"forward[{index}].target", "needs a port of 1 to 65535")


def load_server_config(path: Path) -> ServerConfig:
    """Read cloud-server.toml.

    Raises:
        ConfigError: with every fault found.
    """
    config = load(path, ServerConfig)
    return dataclasses.replace(config, state=config.state or path.parent.absolute())
