from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PrincipalKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRINCIPAL_KIND_UNKNOWN: _ClassVar[PrincipalKind]
    PRINCIPAL_KIND_USER: _ClassVar[PrincipalKind]
    PRINCIPAL_KIND_AGENT: _ClassVar[PrincipalKind]
    PRINCIPAL_KIND_SERVER: _ClassVar[PrincipalKind]
    PRINCIPAL_KIND_KUBE_APISERVER: _ClassVar[PrincipalKind]
    PRINCIPAL_KIND_LOCAL_PROCESS: _ClassVar[PrincipalKind]
    PRINCIPAL_KIND_STATIC_FORWARD: _ClassVar[PrincipalKind]

class TrafficClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRAFFIC_CLASS_AUTO: _ClassVar[TrafficClass]
    TRAFFIC_CLASS_INTERACTIVE: _ClassVar[TrafficClass]
    TRAFFIC_CLASS_BULK: _ClassVar[TrafficClass]
PRINCIPAL_KIND_UNKNOWN: PrincipalKind
PRINCIPAL_KIND_USER: PrincipalKind
PRINCIPAL_KIND_AGENT: PrincipalKind
PRINCIPAL_KIND_SERVER: PrincipalKind
PRINCIPAL_KIND_KUBE_APISERVER: PrincipalKind
PRINCIPAL_KIND_LOCAL_PROCESS: PrincipalKind
PRINCIPAL_KIND_STATIC_FORWARD: PrincipalKind
TRAFFIC_CLASS_AUTO: TrafficClass
TRAFFIC_CLASS_INTERACTIVE: TrafficClass
TRAFFIC_CLASS_BULK: TrafficClass

class Envelope(_message.Message):
    __slots__ = ("packet", "hello", "welcome", "refusal")
    PACKET_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    packet: Packet
    hello: Hello
    welcome: Welcome
    refusal: Refusal
    def __init__(self, packet: _Optional[_Union[Packet, _Mapping]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_min", "protocol_max", "version", "instance_id", "resume_session_id", "last_received", "limits", "node", "features")
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    protocol_min: int
    protocol_max: int
    version: str
    instance_id: bytes
    resume_session_id: bytes
    last_received: int
    limits: Limits
    node: Node
    features: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., version: _Optional[str] = ..., instance_id: _Optional[bytes] = ..., resume_session_id: _Optional[bytes] = ..., last_received: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., node: _Optional[_Union[Node, _Mapping]] = ..., features: _Optional[_Iterable[str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "version", "session_id", "resumed", "last_received", "limits", "suspect_after_ms", "dead_after_ms", "resume_window_ms", "features", "server_id", "servers")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    LAST_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    DEAD_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    RESUME_WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    version: str
    session_id: bytes
    resumed: bool
    last_received: int
    limits: Limits
    suspect_after_ms: int
    dead_after_ms: int
    resume_window_ms: int
    features: _containers.RepeatedScalarFieldContainer[str]
    server_id: str
    servers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocol: _Optional[int] = ..., version: _Optional[str] = ..., session_id: _Optional[bytes] = ..., resumed: _Optional[bool] = ..., last_received: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., suspect_after_ms: _Optional[int] = ..., dead_after_ms: _Optional[int] = ..., resume_window_ms: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., server_id: _Optional[str] = ..., servers: _Optional[_Iterable[str]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "text", "retry_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    text: str
    retry_after_ms: int
    def __init__(self, code: _Optional[int] = ..., text: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_streams", "max_data_bytes", "max_packet_bytes")
    MAX_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_DATA_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PACKET_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_streams: int
    max_data_bytes: int
    max_packet_bytes: int
    def __init__(self, max_streams: _Optional[int] = ..., max_data_bytes: _Optional[int] = ..., max_packet_bytes: _Optional[int] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("hostname", "os_image", "kernel", "architecture", "machine_id", "addresses", "labels", "services", "boot_time_s", "cpus", "memory_bytes", "facts")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    OS_IMAGE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    BOOT_TIME_S_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    os_image: str
    kernel: str
    architecture: str
    machine_id: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    services: _containers.RepeatedScalarFieldContainer[str]
    boot_time_s: int
    cpus: int
    memory_bytes: int
    facts: _containers.RepeatedCompositeFieldContainer[Fact]
    def __init__(self, hostname: _Optional[str] = ..., os_image: _Optional[str] = ..., kernel: _Optional[str] = ..., architecture: _Optional[str] = ..., machine_id: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., services: _Optional[_Iterable[str]] = ..., boot_time_s: _Optional[int] = ..., cpus: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., facts: _Optional[_Iterable[_Union[Fact, _Mapping]]] = ...) -> None: ...

class Fact(_message.Message):
    __slots__ = ("code", "text", "since_s", "until_s")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SINCE_S_FIELD_NUMBER: _ClassVar[int]
    UNTIL_S_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    since_s: int
    until_s: int
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ..., since_s: _Optional[int] = ..., until_s: _Optional[int] = ...) -> None: ...

class Packet(_message.Message):
    __slots__ = ("seq", "ack", "ack_delay_us", "frames", "ack_received_us")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    ACK_DELAY_US_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    ACK_RECEIVED_US_FIELD_NUMBER: _ClassVar[int]
    seq: int
    ack: int
    ack_delay_us: int
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    ack_received_us: int
    def __init__(self, seq: _Optional[int] = ..., ack: _Optional[int] = ..., ack_delay_us: _Optional[int] = ..., frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ..., ack_received_us: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("stream_id", "data", "credit", "open", "accept", "fin", "reset", "stop_sending", "ping", "pong", "go_away")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    FIN_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    STOP_SENDING_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    stream_id: int
    data: bytes
    credit: int
    open: Open
    accept: Accept
    fin: Fin
    reset: Reset
    stop_sending: StopSending
    ping: Ping
    pong: Pong
    go_away: GoAway
    def __init__(self, stream_id: _Optional[int] = ..., data: _Optional[bytes] = ..., credit: _Optional[int] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., accept: _Optional[_Union[Accept, _Mapping]] = ..., fin: _Optional[_Union[Fin, _Mapping]] = ..., reset: _Optional[_Union[Reset, _Mapping]] = ..., stop_sending: _Optional[_Union[StopSending, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("tcp", "service", "deadline_ms", "traffic_class", "principal_text", "trace_id", "credit", "early_data", "principal", "agent", "hop")
    TCP_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_CLASS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_TEXT_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    EARLY_DATA_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    HOP_FIELD_NUMBER: _ClassVar[int]
    tcp: TcpTarget
    service: str
    deadline_ms: int
    traffic_class: TrafficClass
    principal_text: str
    trace_id: str
    credit: int
    early_data: bytes
    principal: Principal
    agent: str
    hop: int
    def __init__(self, tcp: _Optional[_Union[TcpTarget, _Mapping]] = ..., service: _Optional[str] = ..., deadline_ms: _Optional[int] = ..., traffic_class: _Optional[_Union[TrafficClass, str]] = ..., principal_text: _Optional[str] = ..., trace_id: _Optional[str] = ..., credit: _Optional[int] = ..., early_data: _Optional[bytes] = ..., principal: _Optional[_Union[Principal, _Mapping]] = ..., agent: _Optional[str] = ..., hop: _Optional[int] = ...) -> None: ...

class Principal(_message.Message):
    __slots__ = ("kind", "name", "groups", "proof")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    kind: PrincipalKind
    name: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    proof: str
    def __init__(self, kind: _Optional[_Union[PrincipalKind, str]] = ..., name: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., proof: _Optional[str] = ...) -> None: ...

class TcpTarget(_message.Message):
    __slots__ = ("host", "port")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class Accept(_message.Message):
    __slots__ = ("resolved_address", "credit")
    RESOLVED_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    resolved_address: str
    credit: int
    def __init__(self, resolved_address: _Optional[str] = ..., credit: _Optional[int] = ...) -> None: ...

class Fin(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Reset(_message.Message):
    __slots__ = ("code", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: int
    text: str
    def __init__(self, code: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class StopSending(_message.Message):
    __slots__ = ("code",)
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: int
    def __init__(self, code: _Optional[int] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("nonce", "idle_silence_ms")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    IDLE_SILENCE_MS_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    idle_silence_ms: int
    def __init__(self, nonce: _Optional[int] = ..., idle_silence_ms: _Optional[int] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("code", "text", "reconnect_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    text: str
    reconnect_after_ms: int
    def __init__(self, code: _Optional[int] = ..., text: _Optional[str] = ..., reconnect_after_ms: _Optional[int] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("csr_der", "version", "agent_name", "kubernetes_token")
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AGENT_NAME_FIELD_NUMBER: _ClassVar[int]
    KUBERNETES_TOKEN_FIELD_NUMBER: _ClassVar[int]
    csr_der: bytes
    version: str
    agent_name: str
    kubernetes_token: str
    def __init__(self, csr_der: _Optional[bytes] = ..., version: _Optional[str] = ..., agent_name: _Optional[str] = ..., kubernetes_token: _Optional[str] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("chain_der", "ca_pem", "agent_name", "recovery_der", "cross_der")
    CHAIN_DER_FIELD_NUMBER: _ClassVar[int]
    CA_PEM_FIELD_NUMBER: _ClassVar[int]
    AGENT_NAME_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_DER_FIELD_NUMBER: _ClassVar[int]
    CROSS_DER_FIELD_NUMBER: _ClassVar[int]
    chain_der: _containers.RepeatedScalarFieldContainer[bytes]
    ca_pem: bytes
    agent_name: str
    recovery_der: bytes
    cross_der: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, chain_der: _Optional[_Iterable[bytes]] = ..., ca_pem: _Optional[bytes] = ..., agent_name: _Optional[str] = ..., recovery_der: _Optional[bytes] = ..., cross_der: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_der", "new_key", "turn")
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    NEW_KEY_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    csr_der: bytes
    new_key: bool
    turn: Turn
    def __init__(self, csr_der: _Optional[bytes] = ..., new_key: _Optional[bool] = ..., turn: _Optional[_Union[Turn, _Mapping]] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("generation", "nonce")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    generation: int
    nonce: bytes
    def __init__(self, generation: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("chain_der", "ca_pem", "recovery_der", "cross_der", "generation")
    CHAIN_DER_FIELD_NUMBER: _ClassVar[int]
    CA_PEM_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_DER_FIELD_NUMBER: _ClassVar[int]
    CROSS_DER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    chain_der: _containers.RepeatedScalarFieldContainer[bytes]
    ca_pem: bytes
    recovery_der: bytes
    cross_der: _containers.RepeatedScalarFieldContainer[bytes]
    generation: int
    def __init__(self, chain_der: _Optional[_Iterable[bytes]] = ..., ca_pem: _Optional[bytes] = ..., recovery_der: _Optional[bytes] = ..., cross_der: _Optional[_Iterable[bytes]] = ..., generation: _Optional[int] = ...) -> None: ...
