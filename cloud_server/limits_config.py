"""The `[limits]` section of `cloud-server.toml`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from cloud_server.frontends.fleet.pod_limits import PodLimits
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.http.long_heads import HeadLimits
from tunnel.aio.process.config import ByteCount, Count, Fault, PerMinute, PerSecond, Seconds
from tunnel.aio.sockets.listener import Limits as ClientLimits
from tunnel.aio.sockets.strangers import StrangerLimits
from tunnel.core.path.rate import Rate
from tunnel.core.wire.limits import MIB, Limits

PODS: Final = PodLimits()
_CARRIERS: Final = CarrierLimits()
_CLIENTS: Final = ClientLimits()
_HEADS: Final = HeadLimits()
_SESSION: Final = Limits()
_STRANGERS: Final = StrangerLimits()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """The `[limits]` section: what boxes, users and strangers may ask for and make the server hold.

    The defaults are for 10,000 boxes.
    """

    agent_opens_per_s: PerSecond = PerSecond(100.0)
    """The streams that one agent may open towards the cloud, for long."""
    agent_opens_at_once: Count = Count(500)
    user_opens_per_s: PerSecond = PerSecond(500.0)
    """The connections that one user may open, for long."""
    user_opens_at_once: Count = Count(2000)
    links_per_min: PerMinute = PerMinute(30.0)
    """The links that one agent may make, for long."""
    links_at_once: Count = Count(120)
    renewals_per_min: PerMinute = PerMinute(2.0)
    """The certificates that one agent may ask for, for long."""
    renewals_at_once: Count = Count(10)
    joins_per_min: PerMinute = PerMinute(2.0)
    """How often one join token may be shown, for long, beside the boxes that it is for."""
    joins_at_once: Count = Count(10)
    clients: Count = Count(_CLIENTS.connections)
    """The connections of clients at each listener of a front end."""
    clients_per_address: Count = Count(_CLIENTS.per_address)
    """Those with TLS of one IPv4 address or IPv6 /64."""
    handshakes_per_address: Count = Count(_CLIENTS.handshakes_per_address)
    """Those of them whose TLS handshake is under way."""
    strangers: Count = Count(_STRANGERS.connections)
    """The connections of clients that have not shown who they are, at each listener that asks them."""
    strangers_per_address: Count = Count(_STRANGERS.per_address)
    """Those of one IPv4 address or IPv6 /64."""
    stranger_head_bytes: ByteCount = ByteCount(_HEADS.strangers)
    """The memory for long heads of requests to the fleet API, of all strangers."""
    user_head_bytes: ByteCount = ByteCount(_HEADS.users)
    """The same of all users."""

    pods_per_box: Count = Count(PODS.pods)
    pod_namespaces_per_box: Count = Count(PODS.namespaces)
    pod_bytes_per_box: ByteCount = ByteCount(PODS.box_bytes)
    """The memory that the pods of one box take."""
    pod_bytes: ByteCount = ByteCount(PODS.all_bytes)
    """The memory that the pods of all boxes take before each is held to a small share."""
    pod_list_bytes_per_s: ByteCount = ByteCount(PODS.read_bytes_per_s)
    """How fast the lists of pods of one box are read, over a while."""
    fleet_history_bytes: ByteCount = ByteCount(PODS.history_bytes)
    """The memory for changes of objects of the fleet API that watches may still want."""
    stream_memory_bytes: ByteCount = ByteCount(1024 * MIB)
    """The memory that windows, send queues and kept packets of all streams may take together."""
    agent_stream_memory_bytes: ByteCount = ByteCount(_SESSION.session_budget_bytes)
    """The part of it that one agent's streams may take."""
    agent_streams: Count = Count(_SESSION.max_streams)
    """The streams that one agent may have open towards the cloud."""
    orphan_s: Seconds = Seconds(_SESSION.orphan_after_s)
    """Seconds after which a stream is reset whose user has gone and whose other end reads nothing."""
    tunnel_connections: Count = Count(_CARRIERS.connections)
    """Connections at each address of `tunnel.listen`; gRPC closes those beyond when it has accepted them."""
    tunnel_waiting: Count = Count(_CARRIERS.waiting)
    """Connections there that have no call: in their TLS handshake or behind it."""
    tunnel_waiting_per_address: Count = Count(_CARRIERS.waiting_per_address)
    tunnel_requests: Count = Count(_CARRIERS.requests)
    """Requests of boxes for certificates that run at once."""
    tunnel_requests_per_address: Count = Count(_CARRIERS.requests_per_address)
    tunnel_requests_per_identity: Count = Count(_CARRIERS.requests_per_identity)
    tunnel_requests_per_token: Count = Count(_CARRIERS.requests_per_token)
    tunnel_silent: Count = Count(_CARRIERS.max_silent)
    """Links of boxes that have sent nothing yet."""
    tunnel_silent_per_address: Count = Count(_CARRIERS.max_silent_per_address)
    tunnel_silent_per_identity: Count = Count(_CARRIERS.max_silent_per_identity)

    def faults(self) -> Iterable[Fault]:
        """Yields each fault of the section."""
        if self.agent_streams > _SESSION.max_streams:
            text = f"must be {_SESSION.max_streams} or less: queues of a session are made for so many"
            yield Fault("limits.agent_streams", text)

    @property
    def carriers(self) -> CarrierLimits:
        """Returns the limits of the tunnel's port as its server takes them."""
        return CarrierLimits(
            connections=self.tunnel_connections,
            waiting=self.tunnel_waiting,
            waiting_per_address=self.tunnel_waiting_per_address,
            requests=self.tunnel_requests,
            requests_per_address=self.tunnel_requests_per_address,
            requests_per_identity=self.tunnel_requests_per_identity,
            requests_per_token=self.tunnel_requests_per_token,
            max_silent=self.tunnel_silent,
            max_silent_per_address=self.tunnel_silent_per_address,
            max_silent_per_identity=self.tunnel_silent_per_identity,
        )

    @property
    def client_limits(self) -> ClientLimits:
        """Returns what clients may take of each listener."""
        return ClientLimits(
            connections=self.clients,
            per_address=self.clients_per_address,
            handshakes_per_address=self.handshakes_per_address,
        )

    @property
    def heads(self) -> HeadLimits:
        """Returns what long heads of requests may take."""
        return HeadLimits(strangers=self.stranger_head_bytes, users=self.user_head_bytes)

    @property
    def stranger_limits(self) -> StrangerLimits:
        """Returns what strangers may take of each listener."""
        return StrangerLimits(connections=self.strangers, per_address=self.strangers_per_address)

    @property
    def agent_opens(self) -> Rate:
        """Returns the rate of an agent's opens."""
        return Rate(self.agent_opens_per_s, self.agent_opens_at_once)

    @property
    def user_opens(self) -> Rate:
        """Returns the rate of a user's opens."""
        return Rate(self.user_opens_per_s, self.user_opens_at_once)

    @property
    def links(self) -> Rate:
        """Returns the rate of an agent's links."""
        return Rate(self.links_per_min / 60, self.links_at_once)

    @property
    def renewals(self) -> Rate:
        """Returns the rate of an agent's renewals."""
        return Rate(self.renewals_per_min / 60, self.renewals_at_once)

    @property
    def joins(self) -> Rate:
        """Returns the rate of joins with one token."""
        return Rate(self.joins_per_min / 60, self.joins_at_once)

    @property
    def pods(self) -> PodLimits:
        """Returns the limits as the fleet API takes them."""
        return PodLimits(
            pods=self.pods_per_box,
            namespaces=self.pod_namespaces_per_box,
            box_bytes=self.pod_bytes_per_box,
            all_bytes=self.pod_bytes,
            read_bytes_per_s=self.pod_list_bytes_per_s,
            history_bytes=self.fleet_history_bytes,
        )

    @property
    def session(self) -> Limits:
        """Returns the limits of a session."""
        return Limits(
            max_streams=self.agent_streams,
            session_budget_bytes=self.agent_stream_memory_bytes,
            orphan_after_s=self.orphan_s,
            opens_per_s=self.agent_opens_per_s,
            opens_burst=self.agent_opens_at_once,
        )
