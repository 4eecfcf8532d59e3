"""The configuration file of the agent, `edge-agent.toml`: its sections, their defaults and their checks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from edge_agent.hostkubelet.command_pattern import CommandPattern
from edge_agent.hostkubelet.exec_rules import ExecRule
from edge_agent.hostkubelet.limits import KubeletLimits
from edge_agent.hostkubelet.settings import HostSettings, RecordingSettings, SettingsError
from edge_agent.identity.expiries import KubeletFiles
from tunnel.aio.process.config import (
    AuditConfig,
    ByteCount,
    Count,
    Fault,
    HostPort,
    LogConfig,
    NameGlob,
    Seconds,
    SecondsOrNone,
    ServerAddress,
    TargetPattern,
    Validated,
    load,
    load_tolerant,
)
from tunnel.aio.sockets.address import is_loopback
from tunnel.aio.sockets.http_proxy import NO_PROXY, ProxyUnusable, parse_proxy
from tunnel.aio.sockets.listener import Limits as ClientLimits
from tunnel.core.wire.audience import Audience
from tunnel.core.wire.limits import MIB, Limits
from tunnel.core.wire.names import AGENT_NAME_RULE, OLD_KUBELET, is_service_name
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget
from tunnel.core.wire.target_rule import TargetRule

_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_ACCOUNT = re.compile(r"[^\s,:/]{1,256}")
MAX_LABELS = 64
"""The most labels that may be configured; the cloud server shows no more."""
_LABEL_RULE = "1 to 63 of letters, digits, '-', '_' and '.', not at the ends"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudConfig:
    """The `[cloud]` section: which servers to dial, and how."""

    servers: list[ServerAddress] = dataclasses.field(default_factory=list)
    proxy: str | None = dataclasses.field(default=None, repr=False)
    """The HTTP proxy, `http://[user:password@]host:port` or `none`; None asks the environment, as curl does."""
    rotate_key_after_s: Seconds | None = None
    """The age at which the box gets another key; None: never by itself."""

    def faults(self) -> Iterable[Fault]:
        """Yields each fault of the section: a proxy that cannot be used."""
        if self.proxy is not None and self.proxy != NO_PROXY:
            try:
                parse_proxy(self.proxy, "it")
            except ProxyUnusable as error:
                yield Fault("cloud.proxy", str(error))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllowConfig:
    """An `[[allow]]` section: what may be reached through this box."""

    target: TargetPattern
    service: str | None = None
    """A name for the target, if that is a single one: CONNECT finds it as `<agent>:<service>`. None: it has no name."""
    users: list[NameGlob] = dataclasses.field(default_factory=list)
    groups: list[NameGlob] = dataclasses.field(default_factory=list)
    """The groups that may use it, beside `users`. With both empty, everybody may whom the server lets."""

    @property
    def rule(self) -> TargetRule:
        """Returns the rule that the section stands for."""
        return dataclasses.replace(self.target.rule, audience=Audience(tuple(self.users), tuple(self.groups)))


class ListenTarget(str):
    """The target of a `[[listen]]`: `host:port` at the cloud, or the name of something that the server exposes."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> ListenTarget:
        """Returns the target that a value of a configuration stands for.

        Raises:
            ValueError: it is neither the name of a service nor `host:port`.
        """
        if not isinstance(value, str) or not is_service_name(value):
            ServerAddress.from_config(value)
        return cls(value)

    @property
    def target(self) -> Target:
        """Returns the target as streams are opened to it."""
        if is_service_name(self):
            return ServiceTarget(self)
        address = ServerAddress(self)
        return TcpTarget(address.host, address.port)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListenConfig:
    """A `[[listen]]` section: a port on the box that leads to something at the cloud."""

    listen: HostPort
    target: ListenTarget


class AccountName(str):
    """The name of an account of this box."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> AccountName:
        """Returns the name that a value of a configuration stands for.

        Raises:
            ValueError: it cannot be one. The server names accounts with commas between them.
        """
        if not isinstance(value, str) or not _ACCOUNT.fullmatch(value):
            raise ValueError('must be the name of an account of this box, such as "deploy"')
        return cls(value)


class CommandLine(str):
    """A command line that may be run: see `CommandPattern`."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> CommandLine:
        """Returns the command line that a value of a configuration stands for.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(value, str):
            raise ValueError('must be a command line such as "systemctl restart nginx"')  # noqa: TRY004  # as all faults
        CommandPattern.parse(value)
        return cls(value)


DEFAULT_USER = "root"
"""The account that commands run as when nothing names another one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecConfig:
    """A `[[host.exec]]` section: who may run which commands, and as which account."""

    account: AccountName
    users: list[NameGlob] = dataclasses.field(default_factory=list)
    groups: list[NameGlob] = dataclasses.field(default_factory=list)
    """The groups that may run commands, beside `users`. With both empty, everybody may whom the server lets."""
    commands: list[CommandLine] = dataclasses.field(default_factory=list)
    """The command lines that may be run; empty when all may be, an interactive shell too."""

    @property
    def rule(self) -> ExecRule:
        """Returns the rule that the section stands for."""
        audience = Audience(tuple(self.users), tuple(self.groups))
        return ExecRule(self.account, audience, tuple(CommandPattern.parse(text) for text in self.commands))


_RECORDING = RecordingSettings()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingConfig:
    """The `[host.recording]` section: what of commands is recorded."""

    mode: Literal["off", "policy", "always"] = _RECORDING.mode
    folder: Path | None = None
    """The folder of the recordings; None: `recordings` in the state folder."""
    max_file_bytes: int = _RECORDING.max_file_bytes
    max_total_bytes: int = _RECORDING.max_total_bytes
    on_full: Literal["oldest", "refuse"] = _RECORDING.on_full

    def settings(self, state: Path | None) -> RecordingSettings:
        """Returns the settings as the built-in kubelet takes them."""
        folder = self.folder or (None if state is None else state / "recordings")
        return RecordingSettings(self.mode, folder, self.max_file_bytes, self.max_total_bytes, self.on_full)

    def faults(self) -> Iterable[Fault]:
        """Yields each fault of the section."""
        if self.max_file_bytes < MIN_RECORDING_BYTES:
            yield Fault("host.recording.max_file_bytes", f"must be {MIN_RECORDING_BYTES} or more")
        if self.max_total_bytes < self.max_file_bytes:
            yield Fault("host.recording.max_total_bytes", "must be no less than max_file_bytes")


MIN_RECORDING_BYTES = 64 * 1024
"""The least bytes that a recording may have: less would end the first screen of a shell."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostConfig:
    """The `[host]` section: the box as a pod. With its defaults nothing is reachable."""

    exec: bool | list[ExecConfig] = False
    """Whether everybody may run commands as `user`; or sections `[[host.exec]]`, which say who may."""
    user: str = DEFAULT_USER
    shell: str = ""
    units: list[str] = dataclasses.field(default_factory=list)
    files: list[Path] = dataclasses.field(default_factory=list)
    recording: RecordingConfig = dataclasses.field(default_factory=RecordingConfig)
    runner: Path | None = None
    """The unix socket of the service that runs commands as other accounts; None means that the agent does."""

    @property
    def offered(self) -> bool:
        """Returns whether the section offers anything at all."""
        return bool(self.exec or self.units or self.files)

    def settings(self, state: Path | None) -> HostSettings:
        """Returns the settings as the built-in kubelet takes them; recordings are kept in the state folder."""
        return HostSettings(
            exec=bool(self.exec),
            user=self.user,
            shell=self.shell,
            units=self.units,
            files=self.files,
            rules=[one.rule for one in self.exec] if isinstance(self.exec, list) else [],
            recording=self.recording.settings(state),
            runner=self.runner,
        )

    def faults(self) -> Iterable[Fault]:
        """Yields each fault of the section."""
        for section in self.parts():
            try:
                section.check()
            except SettingsError as error:
                yield Fault("host", str(error))
        if isinstance(self.exec, list) and self.user != DEFAULT_USER:
            yield Fault("host.user", "goes without [[host.exec]]: each of those names its own account")
        yield from self.recording.faults()

    def parts(self) -> Iterable[HostSettings]:
        """Yields settings of one unit or one file each, so that what is wrong with each can be told."""
        yield from (HostSettings(units=[unit]) for unit in self.units)
        yield from (HostSettings(files=[file]) for file in self.files)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KubeletConfig:
    """The `[kubelet]` section: a real kubelet on this box, reached with the box's own credentials."""

    address: ServerAddress = ServerAddress("127.0.0.1:10250")
    client_cert: Path
    client_key: Path
    ca: Path


_API_PROXY = HostPort("127.0.0.1:6440")
_KUBELET_CGROUP = Path("/sys/fs/cgroup/system.slice/kubelet.service")


def _default_actions() -> list[Literal["read", "logs", "exec", "secrets"]]:
    return ["read", "logs"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """The `[autonomy.operator]` section: what somebody on this box may do with a token of the box."""

    allow: list[Literal["read", "logs", "exec", "secrets"]] = dataclasses.field(default_factory=_default_actions)
    kubelet: ServerAddress = ServerAddress("127.0.0.1:10250")
    """Where this node's kubelet is asked for logs and commands, on loopback."""

    def faults(self) -> Iterable[Fault]:
        """Yields each fault of the section."""
        if not is_loopback(self.kubelet.host):
            yield Fault("autonomy.operator.kubelet", f"{self.kubelet} must be on loopback: the agent looks who listens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutonomyConfig:
    """The `[autonomy]` section: an API proxy for the components of this Kubernetes node."""

    listen: HostPort | list[HostPort] = _API_PROXY
    """The addresses of the proxy, over TLS. Kubeconfigs are led to the first; others are for pods, say."""
    server: ServerAddress
    """The API server, reached directly or by a `[[listen]]` of this box."""
    ca: Path
    """The cluster's authority."""
    client_cert: Path
    """The kubelet's certificate, with which its requests go up."""
    client_key: Path
    shared_token: Path | None = None
    """The bearer token of an identity that may list and watch what several components of a node want, such as Services:
    they are fetched once then. None: each component has streams of its own.
    """
    kubelet_cgroup: Path = _KUBELET_CGROUP
    """The folder of the cgroup of the kubelet's service, by which a kubelet is known that shows no certificate."""
    certificate_grace_s: SecondsOrNone = SecondsOrNone(30 * 24 * 3600)
    """Seconds for which the kubelet is believed without a certificate, after its own has ended; 0: never."""
    max_parts: Count = Count(1000)
    """How many lists and single objects are kept."""
    max_part_bytes: ByteCount = ByteCount(16 * MIB)
    """The most memory of one list."""
    max_bytes: ByteCount = ByteCount(48 * MIB)
    """The most memory of all."""
    operator: OperatorConfig = dataclasses.field(default_factory=OperatorConfig)

    @property
    def addresses(self) -> list[HostPort]:
        """Returns the addresses of the proxy, that of kubeconfigs first."""
        return self.listen if isinstance(self.listen, list) else [self.listen]

    def faults(self) -> Iterable[Fault]:
        """Yields each fault of the section."""
        if not self.addresses:
            yield Fault("autonomy.listen", "must name at least one address")
        if len(set(self.addresses)) < len(self.addresses):
            yield Fault("autonomy.listen", "names an address twice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """The `[metrics]` section: a page for Prometheus, and for whoever restarts the agent."""

    listen: HostPort | None = None
    """The address of the page, over plain HTTP; None: there is no page."""


_KUBELET = KubeletLimits()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """The `[limits]` section: what clients and servers may make the box hold."""

    stream_memory_bytes: ByteCount = ByteCount(64 * MIB)
    """The memory that windows, send queues and kept packets of all streams may take together."""
    streams: Count = Count(Limits().max_streams)
    """The streams that the server may have open to the box."""
    clients: Count = Count(ClientLimits().connections)
    """The connections at each `[[listen]]`, and at the page of metrics."""
    commands: Count = Count(_KUBELET.commands)
    """The commands that run at once."""
    logs: Count = Count(_KUBELET.logs)
    """The logs and recordings that are read at once."""
    port_forwards: Count = Count(_KUBELET.port_forwards)
    """The clients that forward ports at once."""
    head_bytes: ByteCount = ByteCount(_KUBELET.head_bytes)
    """The memory for heads of requests that are longer than usual, of all of them."""
    orphan_s: Seconds = Seconds(Limits().orphan_after_s)
    """Seconds after which a stream is reset whose user has gone and whose other end reads nothing."""

    def faults(self) -> Iterable[Fault]:
        """Yields each fault of the section."""
        if self.streams > Limits().max_streams:
            text = f"must be {Limits().max_streams} or less: queues of a session are made for so many"
            yield Fault("limits.streams", text)

    @property
    def session(self) -> Limits:
        """Returns the limits of a session."""
        return Limits(max_streams=self.streams, orphan_after_s=self.orphan_s)

    @property
    def client_limits(self) -> ClientLimits:
        """Returns what clients may take of each listener."""
        return ClientLimits(connections=self.clients)

    @property
    def kubelet(self) -> KubeletLimits:
        """Returns the limits of the built-in kubelet."""
        return KubeletLimits(self.commands, self.logs, self.port_forwards, self.head_bytes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentConfig(Validated):
    """The whole configuration file."""

    cloud: CloudConfig = dataclasses.field(default_factory=CloudConfig)
    allow: list[AllowConfig] = dataclasses.field(default_factory=list)
    listen: list[ListenConfig] = dataclasses.field(default_factory=list)
    host: HostConfig = dataclasses.field(default_factory=HostConfig)
    kubelet: KubeletConfig | None = None
    autonomy: AutonomyConfig | None = None
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Labels that are shown on the node, under the prefix of Longline's own labels."""
    audit: AuditConfig = dataclasses.field(default_factory=AuditConfig)
    metrics: MetricsConfig = dataclasses.field(default_factory=MetricsConfig)
    limits: LimitsConfig = dataclasses.field(default_factory=LimitsConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    state: Path | None = None
    """The folder of the box's key and certificate; None: the folder of the configuration file."""
    drain_s: Seconds = Seconds(30.0)

    def faults(self) -> Iterable[Fault]:
        """Yields each fault of the file: what is missing, cannot be used, or does not fit together."""
        if not self.cloud.servers:
            yield Fault("cloud.servers", "must name at least one host:port to dial")
        yield from self.cloud.faults()
        yield from self.host.faults()
        yield from self.limits.faults()
        if self.autonomy is not None:
            yield from self.autonomy.operator.faults()
            yield from self.autonomy.faults()
        if len(self.labels) > MAX_LABELS:
            yield Fault("labels", f"{len(self.labels)} are too many: a node shows {MAX_LABELS}")
        for name, value in self.labels.items():
            if not _LABEL.fullmatch(name):
                yield Fault("labels", f"{name[:80]!r} cannot name a label: {_LABEL_RULE}")
            if value and not _LABEL.fullmatch(value):
                yield Fault(f"labels.{name}", f"{value[:80]!r} cannot be a label's value: empty, or {_LABEL_RULE}")
        yield from self._service_faults()
        taken = [one.listen for one in self.listen if one.listen.port]
        for index, address in enumerate(taken):
            if address in taken[:index]:
                yield Fault(f"listen[{index}].listen", f"{address} is there already")
        if self.kubelet is not None and self.host.offered:
            yield Fault("kubelet", "goes without [host]: the box shows one kubelet, a real one or the built-in one")

    def _service_faults(self) -> Iterable[Fault]:
        seen: set[str] = set()
        for index, allow in enumerate(self.allow):
            key, service = f"allow[{index}].service", allow.service
            if service is None:
                continue
            if not is_service_name(service):
                yield Fault(key, f"{service[:80]!r} cannot name a service: {AGENT_NAME_RULE}, with a letter in it")
            elif service == OLD_KUBELET or service in seen:
                yield Fault(key, f"{service!r} is taken: each service has a name of its own")
            elif allow.rule.single is None:
                yield Fault(key, f"needs a target of one host and one port, not {str(allow.target)!r}")
            seen.add(service)


def named_targets(config: AgentConfig) -> dict[str, TcpTarget]:
    """Returns the targets that `[[allow]]` gives a name, by their names."""
    return {
        allow.service: target
        for allow in config.allow
        if allow.service is not None and (target := allow.rule.single) is not None
    }


ONLY_AT_START = ("state", "audit", "limits.orphan_s", "limits.streams", "log.format")
"""The settings that a running agent does not change."""
NOTHING = AgentConfig()
"""The configuration that an agent matches before it begins: its start is the change from this to its file."""


def kubelet_files(config: AgentConfig) -> KubeletFiles | None:
    """Returns the files of a `[kubelet]` section whose certificates expire; None without such a section."""
    kubelet = config.kubelet
    return None if kubelet is None else KubeletFiles(kubelet.client_cert, kubelet.client_key, kubelet.ca)


def node_files(config: AgentConfig) -> KubeletFiles | None:
    """Returns the files of `[autonomy]` whose certificates expire; None without such a section."""
    node = config.autonomy
    return None if node is None else KubeletFiles(node.client_cert, node.client_key, node.ca)


def load_for_start(path: Path) -> tuple[AgentConfig, list[str]]:
    """Reads edge-agent.toml for a start, at which a bad `[host]` is no reason to have no link.

    Returns:
        The configuration, and the faults of a `[host]` that was left out; no faults when it is good.

    Raises:
        ConfigError: the rest of the file cannot be used; the error has every fault found.
    """
    config, faults = load_tolerant(path, AgentConfig, ("host",))
    return _with_state(config, path), faults


def load_agent_config(path: Path) -> AgentConfig:
    """Reads edge-agent.toml.

    Raises:
        ConfigError: it cannot be used; the error has every fault found.
    """
    return _with_state(load(path, AgentConfig), path)


def _with_state(config: AgentConfig, path: Path) -> AgentConfig:
    return dataclasses.replace(config, state=config.state or path.parent.absolute())
