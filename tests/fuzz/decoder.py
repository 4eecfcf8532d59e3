"""Feeds rubbish that looks like the protocol to everything that decodes: `python -m tests.fuzz.decoder --seconds N`.

Real messages are mutated: bits, lengths, fields, numbers at their edges, frames dropped, doubled and swapped. Nothing
but RemoteProtocolError and SessionRefused may come out, and a session may hold no more than its limits. What goes wrong
is printed as a reproducer, the exit code is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field

from protos import tunnel_pb2 as pb
from tunnel.core.session import Session
from tunnel.core.streams.receive_half import Receive
from tunnel.core.streams.stream import CoreStream
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import decode_envelope, decode_packet, encode_packet
from tunnel.core.wire.errors import Code, RemoteProtocolError, SessionRefused
from tunnel.core.wire.handshake import (
    choose_protocol,
    decode_answer,
    decode_hello,
    encode_hello,
    encode_refusal,
    encode_welcome,
)
from tunnel.core.wire.limits import MAX_FRAMES, Limits, Timing
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget, TcpTarget

EDGES = (0, 1, 2, 3, 127, 128, 255, 65535, 65536, 65537, 2**31, 2**32 - 1, 2**61, 2**62 - 1, 2**62, 2**63, 2**64 - 1)
LIMITS = Limits(max_streams=50, session_budget_bytes=1 << 20, max_in_flight_bytes=1 << 18, opens_burst=500)
MAX_MEMORY_BYTES = 64 * 1024 * 1024
"""What one input may allocate at most: a message of 1 MiB whose every two bytes are a frame takes about a third."""
ALLOWED = (RemoteProtocolError, SessionRefused)


@dataclass
class Failure(Exception):
    """An input that made something escape, or grow."""

    what: str
    inputs: list[bytes]
    why: str

    def __str__(self) -> str:
        lines = [f"failure in {self.what}: {self.why}", "reproduce with these inputs, in order:"]
        return "\n".join([*lines, *(f"  bytes.fromhex({data.hex()!r})" for data in self.inputs)])


@dataclass
class Mutator:
    """Makes messages: real ones, then changed."""

    dice: random.Random
    corpus: list[bytes] = field(default_factory=list)

    def message(self) -> bytes:
        """One message, mutated now and then."""
        data = self.dice.choice(self._makers())()
        for _ in range(self.dice.choice((0, 0, 1, 1, 2, 5))):
            data = self.dice.choice((self._bits, self._cut, self._splice, self._repeat, self._edge))(data)
        if len(self.corpus) < 200:
            self.corpus.append(data)
        else:
            self.corpus[self.dice.randrange(200)] = data
        return data

    def packet(self, seq: int, ids: list[int]) -> bytes:
        """A packet that a session would take, but for what is in its frames. The last of `ids` is the newest opened."""
        frames = [self.frame(ids) for _ in range(self.dice.choice((0, 1, 1, 2, 5, 20)))]
        ack = f.Ack(self.dice.choice((0, 0, 1, 5)), self.word(), self.word())
        return encode_packet(self.number() if self.dice.random() < 0.02 else seq, ack, frames)

    def number(self) -> int:
        """A number, often at an edge."""
        return (
            self.dice.choice(EDGES)
            if self.dice.random() < 0.5
            else self.dice.getrandbits(self.dice.choice((4, 16, 62)))
        )

    def word(self) -> int:
        """A number of 32 bits."""
        return self.number() & 0xFFFFFFFF

    def frame(self, ids: list[int]) -> f.Frame:
        """A frame of any kind."""
        dice = self.dice
        stream_id = dice.choice(ids) % 2**64 if dice.random() < 0.9 else self.number()
        text = dice.choice(("", "text", "\r\n\0", "é" * 512, "x" * 1024))
        kinds: list[Callable[[], f.Frame]] = [
            lambda: f.Data(stream_id, bytes(dice.choice((1, 2, 100, 4096, 65536)))),
            lambda: f.Credit(stream_id, self.number()),
            lambda: self.open(ids, text),
            lambda: f.Accept(stream_id, text, dice.getrandbits(24)),
            lambda: f.Fin(stream_id),
            lambda: f.Reset(stream_id, dice.choice(list(Code)), text),
            lambda: f.StopSending(stream_id, Code.CANCELLED),
            lambda: f.Ping(self.number()),
            lambda: f.Pong(self.number()),
            lambda: f.GoAway(Code.SHUTTING_DOWN, text, dice.getrandbits(32)),
        ]
        return dice.choices(kinds, weights=(6, 3, 6, 2, 2, 2, 1, 1, 1, 0.1))[0]()

    def open(self, ids: list[int], text: str) -> f.Open:
        """An OPEN, mostly of the next id."""
        dice = self.dice
        return f.Open(
            stream_id=(ids[-1] + dice.choices((2, 4, 1), (90, 10, 0.5))[0]) % 2**64,
            target=dice.choice((TcpTarget("10.1.0.9", 80), TcpTarget("h" * 253, 65535), ServiceTarget("kubelet"))),
            deadline_ms=1 + dice.getrandbits(20),
            credit=dice.getrandbits(24),
            traffic_class=dice.choice(list(f.TrafficClass)),
            principal=Principal(kind=dice.choice(list(PrincipalKind)), name=text, groups=(text, "g"), proof=text),
            trace_id=text,
            principal_text=text,
            hop=dice.choice((0, 0, 1, 2)),
        )

    # Internal

    def _makers(self) -> list[Callable[[], bytes]]:
        node = pb.Node(hostname="box-7", labels={"site": "a"}, services=["kubelet"], addresses=["10.0.0.1"])
        makers = [
            lambda: self.packet(self.number(), [1, 2, 3, self.number()]),
            lambda: encode_hello(version="1", instance_id=bytes(16), node=node, limits=LIMITS),
            lambda: encode_welcome(
                protocol=1,
                version="1",
                session_id=bytes(16),
                resumed=False,
                last_received=0,
                limits=LIMITS,
                timing=Timing(),
                features=["principal"],
                servers=["cloud-2:8443"],
            ),
            lambda: encode_refusal(SessionRefused("no", Code.REPLACED, 1.0)),
            lambda: self.dice.randbytes(self.dice.choice((0, 1, 10, 1000))),
        ]
        return makers if not self.corpus else [*makers, lambda: self.dice.choice(self.corpus)]

    def _bits(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.dice.choice((1, 2, 8)) if changed else 0):
            changed[self.dice.randrange(len(changed))] ^= 1 << self.dice.randrange(8)
        return bytes(changed)

    def _cut(self, data: bytes) -> bytes:
        start, end = sorted(self.dice.randrange(len(data) + 1) for _ in range(2))
        return data[:start] + data[end:]

    def _splice(self, data: bytes) -> bytes:
        other = self.dice.choice(self.corpus) if self.corpus else b"\x0a\x00"
        return data[: self.dice.randrange(len(data) + 1)] + other[self.dice.randrange(len(other) + 1) :]

    def _repeat(self, data: bytes) -> bytes:
        start, end = sorted(self.dice.randrange(len(data) + 1) for _ in range(2))
        piece = data[start : min(end, start + 64)]
        return data[:start] + piece * self.dice.choice((2, 10, 1000)) + data[end:]

    def _edge(self, data: bytes) -> bytes:
        at, value, out = self.dice.randrange(len(data) + 1), self.dice.choice(EDGES), bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
        return data[:at] + bytes(out) + data[at + self.dice.choice((0, 1, len(out))) :]


def _decode(message: bytes) -> None:
    packet = decode_packet(decode_envelope(message).packet)
    assert len(packet.frames) <= MAX_FRAMES


TARGETS: dict[str, Callable[[bytes], object]] = {
    "decode_packet": _decode,
    "decode_hello": lambda message: choose_protocol(decode_hello(message)),
    "decode_answer": decode_answer,
}


def fuzz_decoders(mutator: Mutator) -> int:
    """One message to each decoder; returns how many were run."""
    message = mutator.message()
    for name, target in TARGETS.items():
        try:
            target(message)
        except ALLOWED:
            continue
        except Exception as error:
            raise Failure(name, [message], _line(error)) from error
    return len(TARGETS)


def fuzz_session(mutator: Mutator) -> int:
    """A life of one session with a peer that is off its head; returns how many messages it took."""
    dice = mutator.dice
    session = Session(session_id=bytes(16), dialler=dice.random() < 0.5, now=0.0, limits=LIMITS)
    generation, now, given = session.attach(0.0), 0.0, list[bytes]()
    try:
        for _ in range(dice.choice((1, 10, 200))):
            message = _likely_packet(mutator, session) if dice.random() < 0.99 else mutator.message()
            given.append(message)
            session.receive_message(generation, message, now)
            now += dice.choice((0.0, 0.001, 1.0))
            _use(session, dice, now)
            _check(session)
    except ALLOWED as error:
        session.close(error)
        _check(session)
    except Exception as error:
        raise Failure("session", given, _line(error)) from error
    return len(given)


def _likely_packet(mutator: Mutator, session: Session) -> bytes:
    """A packet that the session will probably take, so that lives are long."""
    dice, newest = mutator.dice, session._streams._last_remote_id or session._dialler - 1
    frames: list[f.Frame] = []
    touched: set[int] = set()
    for _ in range(dice.choice((0, 1, 1, 2, 5, 20))):
        streams = [stream for stream in session._streams.all() if stream.id not in touched]
        if dice.random() < 0.005:
            frames.append(mutator.frame([1, 2, newest]))
        elif not streams or dice.random() < 0.2:
            frames.append(mutator.open([newest], "alice"))
            newest = frames[-1].stream_id if isinstance(frames[-1], f.Open) else newest
        else:
            stream = dice.choice(streams)
            touched.add(stream.id)
            frames.append(_likely_frame(dice, stream))
    outbox = session._egress.outbox
    ack = f.Ack(dice.randint(outbox.acked, outbox.acked + outbox.unacked_packets), dice.getrandbits(20), mutator.word())
    return encode_packet(session.last_received + 1 if frames else 0, ack, frames)


def _likely_frame(dice: random.Random, stream: CoreStream) -> f.Frame:
    if not stream.opened:
        accept = stream.local and dice.random() < 0.9
        return f.Accept(stream.id, "", dice.getrandbits(16)) if accept else f.Reset(stream.id, Code.CANCELLED)
    window = stream.receive.window
    room = min(65536, window.granted - window.received)
    if stream.receive.state is Receive.OPEN and room > 0 and dice.random() < 0.6:
        return f.Data(stream.id, bytes(dice.choice((1, min(room, 2), room))))
    kinds: list[f.Frame] = [
        f.Credit(stream.id, stream.send.credit + dice.choice((0, 1, 5000))),
        f.Reset(stream.id, Code.CONNECTION_RESET),
        f.StopSending(stream.id, Code.CANCELLED),
    ]
    return f.Fin(stream.id) if stream.receive.state is Receive.OPEN and dice.random() < 0.2 else dice.choice(kinds)


def _use(session: Session, dice: random.Random, now: float) -> None:
    """What a shell does between messages."""
    session.events()
    session.on_timer(now)
    for stream in session._streams.all():
        match dice.randrange(8):
            case 0 if not stream.opened and not stream.local:
                session.accept_stream(stream, now, "10.1.0.9:80")
            case 1 if stream.opened:
                session.send_data(stream, bytes(dice.choice((1, 5000))), now)
            case 2 if stream.opened:
                taken = sum(map(len, session.take(stream)))
                session.consumed(stream, taken, now)
            case 3 if stream.opened:
                session.send_fin(stream, now)
            case 4 if stream.opened and dice.random() < 0.2:
                session.stop_sending(stream, Code.CANCELLED, now)
            case 5 if dice.random() < 0.2:
                session.reset_stream(stream, Code.CANCELLED)
            case _:
                pass
    if dice.random() < 0.2 and not session.going_away and session.stream_count < LIMITS.max_streams:
        session.open_stream(TcpTarget("10.1.0.9", 80), now, deadline_s=1.0)
    for _ in range(dice.randrange(4)):
        session.next_packet(now)


def _check(session: Session) -> None:
    figures = session.statistics()
    windows = figures.budget_used_bytes - figures.budget_held_bytes
    assert windows <= LIMITS.session_budget_bytes, "more windows than the budget"
    assert figures.budget_held_bytes >= figures.kept_bytes, "more kept than counted"
    assert figures.streams <= 2 * LIMITS.max_streams, "more streams than the limit"
    received = sum(stream.receive.queued for stream in session._streams.all())
    assert received <= windows, "more bytes held than windows granted"
    assert figures.kept_bytes <= LIMITS.max_in_flight_bytes * 1.25 + LIMITS.max_packet_bytes, "too much kept"


def _line(error: Exception) -> str:
    return "".join(traceback.format_exception(error)[-3:]).strip()


def run(seconds: float, seed: int) -> int:
    """Fuzz for a while; returns the number of executions.

    Raises:
        Failure: with the inputs that show it.
    """
    mutator = Mutator(random.Random(seed))
    end, done = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        done += fuzz_decoders(mutator) + fuzz_session(mutator)
        if done % 50 == 0:
            tracemalloc.start()
            message = mutator.message()
            for target in TARGETS.values():
                with contextlib.suppress(*ALLOWED):
                    target(message)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if peak > MAX_MEMORY_BYTES:
                raise Failure("memory", [message], f"{peak} bytes for {len(message)}")
    return done


def main(argv: list[str] | None = None) -> int:
    """Command line; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.decoder", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same inputs")
    arguments = parser.parse_args(argv)
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    try:
        done = run(arguments.seconds, seed)
    except Failure as failure:
        print(f"seed {seed}: {failure}", file=sys.stderr)
        return 1
    print(f"seed {seed}: {done} executions in {arguments.seconds:g} s, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
