"""Every gRPC option of both daemons in one typed table; gRPC ignores a misspelt name in silence, so a test checks each.

What is not here keeps gRPC's default. Credentials are in `credentials.py`; the proxy of one dial is in `channel.py`.

Flow control, measured with 100 MB each way over mutual TLS through a relay of 50 ms round trip (two cores, noise of a
third): bandwidth probing starts at about 110 MB/s, reaches 230-500 MB/s and took a server to 223 MB of memory; without
it a window of 4 MiB gives 61-72 MB/s, 16 MiB 160-235 MB/s, 32 MiB 190-325 MB/s at no more than 132 MB. So probing is
off and the window is as wide as what a session may have in flight.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.core.path.probes import MAX_IDLE_SILENCE_S
from tunnel.core.wire.limits import MAX_MESSAGE_BYTES, Limits

ChannelOptions = list[tuple[str, int | str]]

_LOOKAHEAD_BYTES = Limits().max_in_flight_bytes
MAX_WIRE_SILENCE_S = 20.0
"""Seconds after which bytes go both ways on each link at the latest, however many agents there are."""
_IDENTITY_ONLY = 1
"""The set of accepted compression algorithms as bits: bit 0, "identity". Mixed-trust data is never compressed."""
MAX_CONNECTIONS = "grpc.max_allowed_incoming_connections"
"""How many connections gRPC keeps of those that it accepts at one address; it closes the others before it has made
anything for them. The number is a setting.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One gRPC channel argument; None means that the side does not set it."""

    name: str
    agent: int | None
    cloud: int | None
    why: str


OPTIONS: tuple[Option, ...] = (
    Option(
        name="grpc.keepalive_time_ms",
        agent=int(MAX_WIRE_SILENCE_S * 1000),
        cloud=int(1.5 * MAX_IDLE_SILENCE_S) * 1000,
        why="load balancers and NATs forget a silent connection, some after 30 s, and the session's own PING may be as"
        " rare as once in MAX_IDLE_SILENCE_S. gRPC's is cheaper for a server; from the agent alone, or all ask twice",
    ),
    Option(name="grpc.keepalive_timeout_ms", agent=10_000, cloud=10_000, why="also sets TCP_USER_TIMEOUT"),
    Option(name="grpc.keepalive_permit_without_calls", agent=1, cloud=1, why="both sides must allow it"),
    Option(
        name="grpc.http2.max_pings_without_data", agent=0, cloud=None, why="no limit: an idle tunnel must still ping"
    ),
    Option(
        name="grpc.http2.min_ping_interval_without_data_ms",
        agent=None,
        cloud=10_000,
        why="the default of 5 minutes answers the agent's pings with ENHANCE_YOUR_CALM",
    ),
    Option(
        name="grpc.max_receive_message_length",
        agent=MAX_MESSAGE_BYTES,
        cloud=MAX_MESSAGE_BYTES,
        why="PROTO 2.4; the default of 4 MiB is checked after the memory was taken",
    ),
    Option(
        name="grpc.max_send_message_length",
        agent=MAX_MESSAGE_BYTES,
        cloud=MAX_MESSAGE_BYTES,
        why="unlimited by default, so that our own fault would show at the other side",
    ),
    Option(name="grpc.max_metadata_size", agent=8192, cloud=8192, why="a call carries no metadata of ours"),
    Option(name="grpc.absolute_max_metadata_size", agent=16384, cloud=16384, why="refused at once beyond this"),
    Option(name="grpc.compression_enabled_algorithms_bitset", agent=_IDENTITY_ONLY, cloud=_IDENTITY_ONLY, why="none"),
    Option(name="grpc.default_compression_algorithm", agent=0, cloud=0, why="none"),
    Option(name="grpc.http2.bdp_probe", agent=0, cloud=0, why="see _LOOKAHEAD_BYTES"),
    Option(
        name="grpc.http2.lookahead_bytes",
        agent=_LOOKAHEAD_BYTES,
        cloud=_LOOKAHEAD_BYTES,
        why="the window of one call: our own session decides what is in flight, gRPC must not be narrower",
    ),
    Option(name="grpc.enable_retries", agent=0, cloud=None, why="a carrier is never replayed; the session resumes"),
    Option(
        name="grpc.use_local_subchannel_pool",
        agent=1,
        cloud=None,
        why="each dial is a TCP connection of its own; the shared pool would hand out the broken one and its back-off",
    ),
    Option(
        name="grpc.so_reuseport",
        agent=None,
        cloud=1,
        why="gRPC takes no socket from outside, so that a server that takes over listens beside the one before it; that"
        " two strangers do not is looked at before (`CarrierServer.listen`)",
    ),
    Option(
        name="grpc.server_handshake_timeout_ms",
        agent=None,
        cloud=10_000,
        why="a silent TCP connection is held no longer than this; the default is 120 s",
    ),
    Option(
        name="grpc.max_connection_idle_ms",
        agent=None,
        cloud=300_000,
        why="a connection that shook hands and makes no call then is closed. gRPC looks at those with a call, too, when"
        " this has passed: with 30 s in place of 300, 5,000 idle agents cost a server 8 % of a core, not 5",
    ),
    Option(
        name="grpc.enable_channelz",
        agent=0,
        cloud=0,
        why="figures of each connection that nobody can ask for here: 1 kB of a server for each idle agent",
    ),
    Option(
        name="grpc.tsi.max_frame_size",
        agent=None,
        cloud=8 * 1024,
        why="each connection keeps a buffer for a TLS frame: 5 kB less than with the default of 16 KiB, and 512 KiB"
        " messages cost no more CPU; 4 KiB would be 2 kB less, for 14 % more of gRPC's CPU",
    ),
    Option(
        name="grpc.max_concurrent_streams",
        agent=None,
        cloud=2,
        why="each call of a box has a connection of its own, and one that ends may overlap the next; what a call sends"
        " before its role is checked, up to the window, is held for so many calls of each connection",
    ),
)


def agent_options() -> ChannelOptions:
    """Returns the options that an agent gives to each of its channels."""
    return [(option.name, option.agent) for option in OPTIONS if option.agent is not None]


def cloud_options(connections: int) -> ChannelOptions:
    """Returns the options that the cloud gives to its server, which takes so many connections at each address."""
    options: ChannelOptions = [(option.name, option.cloud) for option in OPTIONS if option.cloud is not None]
    return [*options, (MAX_CONNECTIONS, connections)]
