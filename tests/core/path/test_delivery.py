"""tunnel.core.path.delivery: what is kept, sent again and acknowledged (PROTO 4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.path.delivery import ACK_AT_BYTES, Inbox, Outbox
from tunnel.core.wire.errors import RemoteProtocolError
from tunnel.core.wire.frames import Ack

FULL = 1400


def _outbox(count: int) -> Outbox:
    outbox = Outbox()
    outbox.restart(0)
    for _ in range(count):
        seq = outbox.next_seq()
        outbox.sent(seq, b"x" * 10, now=float(seq))
    return outbox


def test_packets_are_kept_until_acknowledged() -> None:
    outbox = _outbox(5)
    assert (outbox.in_flight_bytes, outbox.kept_bytes, outbox.unacked_packets) == (50, 50, 5)
    newest = outbox.acknowledge(3)
    assert newest is not None
    assert (newest.seq, newest.sent_s) == (3, 3.0)
    assert (outbox.in_flight_bytes, outbox.kept_bytes, outbox.unacked_packets) == (20, 20, 2)


def test_ack_that_says_nothing_new_is_ignored() -> None:
    outbox = _outbox(5)
    outbox.acknowledge(3)
    assert outbox.acknowledge(3) is None
    assert outbox.acknowledge(1) is None
    assert outbox.kept_bytes == 20


def test_ack_of_what_was_not_sent_on_this_carrier_is_a_fault() -> None:
    outbox = _outbox(3)
    with pytest.raises(RemoteProtocolError, match="only 3 was sent"):
        outbox.acknowledge(4)
    outbox.restart(1)
    with pytest.raises(RemoteProtocolError, match="only 1 was sent"):
        outbox.acknowledge(2)
    outbox.resend(9.0)
    assert outbox.acknowledge(2) is not None


def test_new_carrier_sends_again_what_the_peer_lacks_and_only_that() -> None:
    outbox = _outbox(4)
    outbox.acknowledge(1)
    outbox.restart(2)
    assert (outbox.in_flight_bytes, outbox.kept_bytes, outbox.has_resends) == (0, 20, True)
    outbox.resend(9.0)
    assert (outbox.in_flight_bytes, outbox.kept_bytes) == (10, 20)
    outbox.restart(2)  # and the next one broke at once
    assert [outbox.resend(9.0) for _ in range(2)] == [b"x" * 10] * 2
    assert not outbox.has_resends
    packet = outbox.acknowledge(4)
    assert packet is not None
    assert (packet.seq, packet.sent_s) == (4, 9.0)
    assert outbox.kept_bytes == 0


@pytest.mark.parametrize(("received", "possible"), [(1, False), (2, True), (4, True), (5, False)])
def test_resume_is_possible_only_between_what_was_acknowledged_and_sent(received: int, possible: bool) -> None:
    outbox = _outbox(4)
    outbox.acknowledge(2)
    assert outbox.may_resume_at(received) is possible


def test_clear_keeps_nothing() -> None:
    outbox = _outbox(4)
    outbox.restart(2)
    outbox.resend(1.0)
    outbox.clear()
    assert (outbox.kept_bytes, outbox.has_resends, outbox.unacked_packets) == (0, False, 0)


@given(st.lists(st.sampled_from(["send", "deliver", "ack", "cut"]), max_size=80), st.data())
def test_whatever_carriers_do_each_packet_arrives_once_in_order(steps: list[str], data: st.DataObject) -> None:
    outbox, inbox = _outbox(0), Inbox(0.0)
    flying: list[bytes] = []
    arrived: list[bytes] = []
    for step in steps:
        if step == "send":
            if outbox.has_resends:
                flying.append(outbox.resend(0.0))
            else:
                seq = outbox.next_seq()
                outbox.sent(seq, str(seq).encode(), 0.0)
                flying.append(str(seq).encode())
        elif step == "deliver" and flying:
            inbox.receive(int(flying[0]), FULL, 0.0)
            arrived.append(flying.pop(0))
        elif step == "ack":
            outbox.acknowledge(data.draw(st.integers(0, inbox.last_received)))
        elif step == "cut":
            flying.clear()
            assert outbox.may_resume_at(inbox.last_received)
            outbox.restart(inbox.last_received)
    assert arrived == [str(seq).encode() for seq in range(1, len(arrived) + 1)]


def test_single_packet_waits_a_little_for_its_ack() -> None:
    inbox = Inbox(0.002)
    inbox.receive(1, FULL, 5.0)
    assert (inbox.ack_now, inbox.ack_timer_s) == (False, 5.002)
    inbox.on_timer(5.001)
    assert not inbox.ack_now
    inbox.on_timer(5.002)
    assert (inbox.ack_now, inbox.ack_timer_s) == (True, None)
    inbox.on_timer(6.0)
    assert inbox.take_ack(5.0025) == Ack(1, 2500, 5_000_000)
    assert not inbox.ack_now


def test_second_packet_is_acknowledged_at_once() -> None:
    inbox = Inbox(0.002)
    inbox.receive(1, FULL, 5.0)
    inbox.receive(2, FULL, 5.001)
    assert (inbox.ack_now, inbox.ack_timer_s) == (True, None)
    inbox.receive(3, FULL, 5.002)
    assert inbox.take_ack(5.003) == Ack(3, 1000, 5_002_000)


def test_small_packets_wait_together_as_one_does() -> None:
    inbox = Inbox(0.002)
    for seq in range(1, 7):
        inbox.receive(seq, ACK_AT_BYTES // 7, 5.0 + seq / 1e4)
    assert (inbox.ack_now, inbox.ack_timer_s) == (False, 5.0001 + 0.002)
    inbox.receive(7, ACK_AT_BYTES // 7, 5.0009)
    assert (inbox.ack_now, inbox.ack_timer_s) == (True, None)
    inbox.take_ack(5.001)
    inbox.receive(8, 1, 5.001)
    inbox.receive(9, 1, 5.001)
    assert not inbox.ack_now


def test_ack_that_says_nothing_new_has_no_delay() -> None:
    inbox = Inbox(0.002)
    inbox.receive(1, FULL, 5.0)
    inbox.take_ack(5.0)
    assert inbox.take_ack(99.0) == Ack(1, 0, 5_000_000)


def test_delay_fits_its_field() -> None:
    inbox = Inbox(0.002)
    inbox.receive(1, FULL, 0.0)
    assert inbox.take_ack(1e6) == Ack(1, 0xFFFFFFFF, 0)
    inbox.receive(2, FULL, 5000.0)
    assert inbox.take_ack(5000.0) == Ack(2, 0, 5_000_000_000 - (1 << 32))


@pytest.mark.parametrize("seq", [0, 1, 3])
def test_packet_out_of_order_is_a_fault(seq: int) -> None:
    inbox = Inbox(0.002)
    inbox.receive(1, FULL, 0.0)
    with pytest.raises(RemoteProtocolError, match=f"packet {seq} after 1"):
        inbox.receive(seq, FULL, 0.0)


def test_handshake_has_told_the_peer_everything() -> None:
    inbox = Inbox(0.002)
    inbox.receive(1, FULL, 0.0)
    inbox.restart()
    assert (inbox.ack_now, inbox.ack_timer_s) == (False, None)
