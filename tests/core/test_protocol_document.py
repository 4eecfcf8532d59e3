"""docs/protocol.md against the code: clauses that are cited exist, and numbers are the code's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tunnel.core import egress, session
from tunnel.core.path import allowance, delivery
from tunnel.core.streams import scheduler, send_half
from tunnel.core.wire import codec, features, handshake, shape
from tunnel.core.wire import limits as m
from tunnel.core.wire.errors import Code
from tunnel.core.wire.names import KUBELET, MAX_NAME_BYTES, OLD_KUBELET, OURS, is_service_name
from tunnel.core.wire.target import MAX_HOST_BYTES, MAX_SERVICE_BYTES

TOP = Path(__file__).parent.parent.parent
DOCUMENT = (TOP / "docs" / "protocol.md").read_text(encoding="utf-8")
CLAUSES = dict(re.findall(r"^(\d+\.\d+) (.*?)(?=\n\n|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))
CHAPTERS = set(re.findall(r"^## (\d+) ", DOCUMENT, re.MULTILINE))


def _citations() -> Iterator[tuple[str, str]]:
    for folder in ("tunnel", "protos", "edge_agent", "cloud_server"):
        for path in sorted((TOP / folder).rglob("*")):
            if path.suffix in (".py", ".proto") and "_pb2" not in path.name:
                for list_ in re.findall(r"PROTO\s+(\d[\d., ]*(?:(?:and|to)\s+\d[\d.]*)?)", path.read_text()):
                    for number in re.findall(r"\d+(?:\.\d+)?", list_):
                        yield str(path.relative_to(TOP)), number


def test_cited_clauses_exist() -> None:
    citations = list(_citations())
    assert len(citations) > 30
    missing = [(path, number) for path, number in citations if number not in (CLAUSES if "." in number else CHAPTERS)]
    assert missing == []


def test_clauses_are_numbered_without_gaps() -> None:
    numbers = [tuple(map(int, number.split("."))) for number in CLAUSES]
    for before, after in pairwise(numbers):
        assert after in {(before[0], before[1] + 1), (before[0] + 1, 1)}


def test_codes_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", DOCUMENT, re.MULTILINE)
    assert [(int(number), name) for number, name in rows] == [(code.value, code.name) for code in Code]


LIMITS, TIMING = m.Limits(), m.Timing()


@pytest.mark.parametrize(
    ("clause", "numbers"),
    [
        ("2.4", [m.MAX_MESSAGE_BYTES, handshake.MAX_HANDSHAKE_BYTES]),
        ("2.5", [m.MAX_TEXT_BYTES]),
        ("2.6", [m.MAX_FRAMES, shape.MAX_BESIDE_BYTES, shape.UNLOOKED_BYTES]),
        ("2.7", [MAX_HOST_BYTES, MAX_SERVICE_BYTES]),
        ("3.1", [m.SESSION_ID_BYTES, handshake.MAX_NODE_ENTRIES, m.MAX_TEXT_BYTES]),
        ("3.2", [handshake.PROTOCOL_MIN, handshake.PROTOCOL_MAX]),
        ("3.8", [features.MAX_FEATURES, features.MAX_FEATURE_BYTES]),
        ("3.10", [m.MAX_FACT_CODE_BYTES, m.MAX_FACT_TEXT_BYTES, m.MAX_FACTS]),
        ("3.11", [m.MAX_NODE_BYTES]),
        ("3.9", [handshake.MAX_SERVER_ID_BYTES, handshake.MAX_SERVERS, handshake.MAX_SERVER_BYTES]),
        ("3.4", [m.MIN_PEER_DATA_BYTES, m.MIN_PEER_PACKET_BYTES]),
        ("3.4", [LIMITS.max_streams, LIMITS.max_data_bytes, LIMITS.max_packet_bytes]),
        ("4.5", [TIMING.max_ack_delay_s * 1000, delivery.ACK_AT_BYTES]),
        ("4.6", [egress.INTERACTIVE_EXTRA, LIMITS.max_in_flight_bytes / m.MIB]),
        ("4.6", [egress.MAX_UNACKED_PACKETS, session.MAX_CONTROL_FRAMES]),
        ("4.7", [allowance.FRAMES_BURST, allowance.FRAMES_PER_S, allowance.MESSAGE_FRAMES]),
        ("4.7", [allowance.FLOOD_S, allowance.BARRED_S]),
        ("4.7", [allowance.OPEN_EARNS, allowance.DATA_EARNS, allowance.BYTES_EARN]),
        ("4.8", [egress.UNACKED_S]),
        ("5.12", [LIMITS.orphan_after_s]),
        ("5.2", [m.MAX_DATA_BYTES]),
        ("5.3", [m.MAX_EARLY_BYTES, scheduler.HOLD_S * 1000]),
        ("5.7", [LIMITS.opens_burst, LIMITS.opens_per_s]),
        ("5.9", [m.MAX_TEXT_BYTES, m.MAX_GROUPS, m.MAX_GROUPS_BYTES, m.MAX_PROOF_BYTES]),
        ("5.10", [m.MAX_TRACE_ID_BYTES]),
        ("5.11", [MAX_NAME_BYTES, m.MAX_HOP]),
        ("6.2", [LIMITS.initial_window_bytes / m.KIB, LIMITS.min_window_bytes / m.KIB]),
        ("6.2", [LIMITS.max_window_bytes / m.MIB, LIMITS.session_budget_bytes / m.MIB]),
        ("6.2", [send_half.MAX_CREDIT_AHEAD_BYTES / m.MIB / 1024]),
        (
            "6.3",
            [
                send_half.INTERACTIVE_BYTES / m.KIB,
                send_half.INTERACTIVE_HINT_BYTES / m.KIB,
                send_half.RECENT_HALF_LIFE_S,
            ],
        ),
        ("7.3", [TIMING.suspect_after_s, TIMING.dead_after_s]),
        ("7.4", [TIMING.resume_window_s]),
    ],
)
def test_numbers_are_those_of_the_code(clause: str, numbers: list[float]) -> None:
    words = re.findall(r"\d[\d,.]*\d|\d", CLAUSES[clause])
    assert [number for number in numbers if f"{number:,g}" not in words and f"{number:,.0f}" not in words] == []


def test_ranges_in_words() -> None:
    assert codec.MAX_OFFSET == 1 << 62
    assert "2^62" in CLAUSES["2.6"]
    assert delivery.ACK_EVERY_PACKETS == 2
    assert "every second packet" in CLAUSES["4.5"]


def test_features_and_names_of_ours_are_those_of_the_code() -> None:
    assert set(re.findall(r"`([\w-]+)`", CLAUSES["3.8"].partition("This build")[2])) == features.FEATURES
    assert {OURS, KUBELET, OLD_KUBELET} <= set(re.findall(r"`([^`]+)`", CLAUSES["2.8"]))
    assert not is_service_name(KUBELET)
