"""Every bound and time of a session in one place, with the arithmetic behind each default."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * 1024

MAX_TEXT_BYTES = 1024
"""The longest text in any frame (PROTO 2.5), in UTF-8."""
MAX_FRAMES = 4096
"""The most frames in one packet. At 64 bytes of Python objects a frame this is 256 KiB for one hostile packet."""
MAX_MESSAGE_BYTES = MIB
"""The largest serialized Envelope (PROTO 2.4)."""
MAX_DATA_BYTES = 64 * KIB
"""The largest DATA frame (PROTO 5.2): a message costs 70-140 us whatever its size up to here."""
CHUNK_BYTES = MAX_DATA_BYTES - 64
"""The size of the frames that a long flow of bytes is cut into: eight of them fill a packet of 512 KiB, with what
frames and packet add. Of eight that are 64 bytes longer, the end of the last would go alone in a packet, and cost as
much as the eight.
"""
MIN_PEER_DATA_BYTES = 1024
"""The least bound on DATA frames that a peer can set; one that asks for less gets this. Bytes sent one by one would
cost us more than it (PROTO 3.4).
"""
MAX_EARLY_BYTES = 2 * KIB
"""The most early data that OPEN may bring along (PROTO 5.3). It is below the least window, and enough for the hello of
TLS or SSH, or for the head of a request.
"""
MIN_PEER_PACKET_BYTES = 8 * KIB
"""The least bound on packets that a peer can set. The longest control frame, an OPEN, fits in it: 253 bytes of a host,
twice 1024 of a principal's name (one for older peers), 2048 of groups, 256 of a proof, 64 and 63 of the trace id and an
agent, 2048 of early data make 6780, and what protobuf adds is less than 200.
"""
MAX_GROUPS = 32
MAX_GROUPS_BYTES = 2 * KIB
"""The most bytes in all groups of a principal together. Users of Active Directory are in 30 groups and more; groups
beyond the bound are not told.
"""
MAX_PROOF_BYTES = 256
MAX_TRACE_ID_BYTES = 64
"""The longest trace id. Ours have 16 bytes; the ids of W3C's trace context have 32."""
MAX_HOP = 1
"""How many servers may have forwarded a stream. A server hands a stream on to the one that has the agent's link, and a
second hand-over would begin a circle.
"""
LAST_MOMENT_S = 253_402_300_799
"""The end of the year 9999 in seconds since 1970, behind which calendars of programs have no dates."""
SESSION_ID_BYTES = 16
NONCE_BYTES = 16
"""The bytes of the nonce in a request for a certificate (PROTO 10.5)."""
MAX_CSR_BYTES = 8 * KIB
"""The longest request for a certificate: one with the largest RSA key, which is refused by its kind, is below 4 KiB."""
MAX_FACTS = 32
"""The most facts that a box may tell of itself at once: its clock, its DNS, and a few parts that are down."""
MAX_FACT_TEXT_BYTES = 512
MAX_FACT_CODE_BYTES = 16
MAX_NODE_BYTES = 48 * KIB
"""The largest Node by itself; with the rest of Hello it fits in a message of the handshake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one side of a session is ready to receive and to hold."""

    max_streams: int = 4096
    """How many streams the peer may have open; one more is refused with LIMIT_EXCEEDED."""
    max_data_bytes: int = MAX_DATA_BYTES
    max_packet_bytes: int = 512 * KIB
    """The largest packet that we build: past 512 KiB several copies get no faster, and all behind it waits longer."""
    initial_window_bytes: int = 256 * KIB
    min_window_bytes: int = 4 * KIB
    """The least window of a stream: 4096 streams with it take 16 MiB, less than a quarter of the session's budget."""
    max_window_bytes: int = 32 * MIB
    """The largest window of a stream. At a round trip of 50 ms one stream can so move 32 MiB / 0.05 s = 671 MB/s."""
    session_budget_bytes: int = 80 * MIB
    """What windows, send queues and kept packets of a session may take together."""
    max_in_flight_bytes: int = 32 * MIB
    """The most bytes of packets kept for a resume; only links with more than 32 MiB of bandwidth-delay product reach
    it.
    """
    send_queue_bytes: int = 512 * KIB
    """Bytes a stream may queue before its writer is asked to wait, while few streams are open."""
    waiting_queue_bytes: int = 128 * KIB
    """Bytes of those that a stream may queue beyond its credit while memory is left: half a read of its socket. They
    wait for the peer's reader. With less of them each credit finds an empty queue, and a copy goes in small packets.
    """
    min_send_queue_bytes: int = 4 * KIB
    """The same where no memory is left: with 4096 streams, 16 MiB."""
    session_send_queue_bytes: int = 32 * MIB
    """How many bytes all streams' queues should hold together at most, on the fastest link."""
    min_session_send_queue_bytes: int = MIB
    """The same on the slowest one; in between it goes by what the link takes. Streams that have something to send share
    it.
    """
    opens_per_s: float = 5000.0
    """How many streams per second a peer may open for long. Past the burst, opens are refused, so that open-and-reset
    loops cost it, not us.
    """
    opens_burst: int = 10000
    orphan_after_s: float = 300.0
    """Seconds without a byte read after which a stream is given up whose user has gone. Linux does the same to a closed
    socket whose peer keeps its window shut, after 8 probes (tcp_orphan_retries) that take 102 s and more; a printer
    that is out of paper has longer.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The clocks of a session, in seconds (PROTO 7)."""

    suspect_after_s: float = 10.0
    """Seconds of silence after which the peer is asked for a sign of life."""
    dead_after_s: float = 15.0
    """Seconds of silence after which the carrier is given up."""
    resume_window_s: float = 120.0
    """Seconds that a session waits for a new carrier."""
    max_ack_delay_s: float = 0.002
    """Seconds that an ack may wait for something to ride on."""
