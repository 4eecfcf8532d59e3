"""tunnel.core.wire.limits: the arithmetic that the defaults claim."""

from __future__ import annotations

from tunnel.core.wire import limits as m


def test_defaults_fit_together() -> None:
    limits = m.Limits()
    assert limits.max_streams * limits.min_window_bytes <= limits.session_budget_bytes // 4
    assert limits.min_window_bytes >= m.MAX_EARLY_BYTES
    assert limits.min_window_bytes <= limits.initial_window_bytes <= limits.max_window_bytes
    assert limits.max_data_bytes <= m.MAX_DATA_BYTES <= limits.max_packet_bytes <= m.MAX_MESSAGE_BYTES
    assert m.MIN_PEER_DATA_BYTES < m.MIN_PEER_PACKET_BYTES <= limits.max_packet_bytes
    assert limits.min_send_queue_bytes <= limits.send_queue_bytes <= limits.session_send_queue_bytes


def test_death_is_noticed_within_fifteen_seconds() -> None:
    timing = m.Timing()
    assert timing.suspect_after_s < timing.dead_after_s <= 15.0 < timing.resume_window_s
