"""edge-agent.toml."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from edge_agent.hostkubelet.settings import HostSettings, SettingsError
from tunnel.aio.channel import proxy_options
from tunnel.aio.config import Fault, HostPort, LogConfig, Seconds, Validated, load
from tunnel.core.target_rule import TargetRule


class AllowTarget(str):
    """A rule `host:ports`."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> AllowTarget:
        """Check a value of a configuration."""
        if not isinstance(value, str):
            raise ValueError(f"must be a string host:ports, not {value!r}")  # noqa: TRY004 - cattrs collects these
        TargetRule.parse(value)
        return cls(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudConfig:
    """The `[cloud]` section: whom to dial."""

    servers: list[HostPort]
    proxy: str | None = None
    """`http://[user:password@]host:port`, or `none`; None asks the environment (https_proxy, no_proxy)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllowConfig:
    """An `[[allow]]`: what may be reached through this box."""

    target: AllowTarget

    @property
    def rule(self) -> TargetRule:
        """The rule, parsed."""
        return TargetRule.parse(self.target)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostConfig:
    """The `[host]` section: the box as a pod. With its defaults nothing is reachable."""

    exec: bool = False
    user: str = "root"
    shell: str = ""
    units: list[str] = dataclasses.field(default_factory=list)
    files: list[Path] = dataclasses.field(default_factory=list)

    @property
    def offered(self) -> bool:
        """Whether there is anything to offer."""
        return self.exec or bool(self.units) or bool(self.files)

    @property
    def settings(self) -> HostSettings:
        """As the built-in kubelet takes them."""
        return HostSettings(exec=self.exec, user=self.user, shell=self.shell, units=self.units, files=self.files)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KubeletConfig:
    """The `[kubelet]` section: a real kubelet on this box, reached with the box's own credentials."""

    address: HostPort = HostPort("127.0.0.1:10250")
    client_cert: Path
    client_key: Path
    ca: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentConfig(Validated):
    """The whole file."""

    cloud: CloudConfig
    allow: list[AllowConfig] = dataclasses.field(default_factory=list)
    host: HostConfig = dataclasses.field(default_factory=HostConfig)
    kubelet: KubeletConfig | None = None
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Shown on the node, under the prefix of Longline's own labels."""
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    state: Path | None = None
    """Folder of the box's key and certificate; None: the folder of the file."""
    drain_s: Seconds = Seconds(30.0)

    def faults(self) -> Iterable[Fault]:
        """What does not fit together."""
        if not self.cloud.servers:
            yield Fault("cloud.servers", "must name at least one server")
        for index, server in enumerate(self.cloud.servers):
            if server.port == 0:
                yield Fault(f"cloud.servers[{index}]", "needs a port of 1 to 65535")
        try:
            proxy_options(self.cloud.proxy)
        except ValueError as error:
            yield Fault("cloud.proxy", str(error))
        try:
            self.host.settings.check()
        except SettingsError as error:
            yield Fault("host", str(error))
        if self.kubelet is not None and self.host.offered:
            yield Fault("kubelet", "goes without [host]: the box shows one kubelet, a real one or the built-in one")


def load_agent_config(path: Path) -> AgentConfig:
    """Read edge-agent.toml.

    Raises:
        ConfigError: with every fault found.
    """
    config = load(path, AgentConfig)
    return dataclasses.replace(config, state=config.state or path.parent.absolute())
