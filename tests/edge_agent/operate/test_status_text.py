"""`edge-agent status` for people: what is wrong first, and what to type about it."""

from __future__ import annotations

from typing import Any

from edge_agent.operate.status_text import EXIT_CODES, lines

NOW = "2026-11-29T13:18:14.158082Z"
GOOD: dict[str, Any] = {
    "verdict": "good", "line": "box-7 is connected", "agent": "box-7", "version": "1", "since": NOW,
    "servers": [{"address": "cloud:7443", "state": "up", "since": NOW, "fault": None, "code": None}],
    "session": "faac0057", "rtt_s": 0.0123, "streams": {"tcp": 2, "listen": 1}, "parts": [], "facts": [],
    "limits": [{"name": "logs", "limit": 128, "used": 0}, {"name": "commands", "limit": 128, "used": 3}],
    "certificates": [{"name": "agent", "not_after": NOW, "days_left": 6.98, "remedy": None}],
    "config": {
        "generation": 1, "loaded": NOW, "path": "/e.toml", "fault": None, "changed": [], "needs_restart": [],
    },
}  # fmt: skip


def test_when_all_is_well() -> None:
    assert list(lines(GOOD)) == [
        "good: box-7 is connected",
        "agent     box-7, version 1, runs since 2026-11-29 13:18:14 UTC",
        "server    cloud:7443 up since 2026-11-29 13:18:14 UTC",
        "session   faac0057, round trip 12 ms, 3 streams (1 listen, 2 tcp)",
        "limit     commands: 3 of 128 (2%)",
        "limit     1 more is not used",
        "expires   agent: in 7.0 days",
        "config    /e.toml, generation 1, of 2026-11-29 13:18:14 UTC",
    ]


def test_what_is_wrong_comes_with_what_to_type() -> None:
    fact = {"code": "LL2018", "text": "the clock is wrong", "since": NOW, "until": None}
    over = {"code": "LL3003", "text": "the proxy said no", "since": NOW, "until": NOW}
    down = {"address": "cloud:7443", "state": "down", "since": NOW, "fault": "no such name", "code": "LL3001"}
    config = {**GOOD["config"], "fault": "line 1", "needs_restart": ["state: a -> b"], "changed": ["labels.a: 1 -> 2"]}
    parts = [{"name": "metrics", "up": False, "fault": None}]
    bad = {**GOOD, "verdict": "bad", "facts": [fact, over], "servers": [down], "session": None, "rtt_s": None,
           "streams": {}, "config": config, "parts": parts}  # fmt: skip
    text = list(lines(bad))
    assert text[1] == "  LL2018: the clock is wrong (since 2026-11-29 13:18:14 UTC)"
    assert text[2].endswith("until 2026-11-29 13:18:14 UTC)")
    assert "server    cloud:7443 down since 2026-11-29 13:18:14 UTC: no such name" in text
    assert "session   none, 0 streams" in text
    assert "part      metrics: being brought up" in text
    assert text[-4:] == [
        "to mend it: edge-agent explain LL3001",
        "to mend it: edge-agent explain LL2018",
        "to see all that is wrong in the file: edge-agent check --config /e.toml",
        "to apply what needs a restart: systemctl restart edge-agent",
    ]
    assert EXIT_CODES == {"good": 0, "warning": 1, "bad": 2}


AUTONOMY: dict[str, Any] = {
    "reached": False, "since": "2026-03-01T12:00:00Z", "reason": "no answer within 2 s",
    "scopes": [
        {"name": "pods, spec.nodeName=n", "objects": 12, "complete": True, "kept": True, "trouble": None,
         "stale_s": 90.4},
        {"name": "secrets in a", "objects": 3, "complete": True, "kept": False, "trouble": "the disk is full"},
        {"name": "things", "objects": 0, "complete": False, "kept": False, "trouble": None},
    ],
    "missing": [{"name": "services", "who": "node", "since": "2026-03-01T12:00:03Z"}],
    "passed": ["others"], "singles": 2, "bytes": 1_250_000, "tokens": 4, "trouble": "the disk is full",
    "waiting": {"statuses": 2, "events": 0}, "waiting_since": {"statuses": "2026-03-01T12:00:05Z", "events": None},
    "dropped_why": {"statuses": {}, "events": {"no room": 1}},
    "outages": {"since": "2026-03-01T12:00:00Z", "untold": None, "last_told": "from A to B (70 s): refused"},
    "node_refused_since": "2026-03-01T12:00:00Z", "certificate_ends": "2026-02-01T12:00:00Z", "grace_left_s": 129600,
}  # fmt: skip


def test_the_api_of_a_node() -> None:
    text = "\n".join(lines({**GOOD, "autonomy": AUTONOMY}))
    for wanted in (
        "api       API server away: no answer within 2 s, since 2026-03-01 12:00:00 UTC",
        "it does not take the node's certificate (401), since 2026-03-01 12:00:00 UTC",
        "ended at 2026-02-01 12:00:00 UTC; without it the kubelet is believed for 1.5 days more",
        "kept      14 objects in 1 of 3 parts, 1.2 MB, and 4 tokens",
        "nothing is written: the disk is full", "not kept: secrets in a: the disk is full",
        "not kept: things: it is being asked for", "not kept: others: there is no room",
        "missing: services: asked for since 2026-03-01 12:00:03 UTC, and not kept as a whole",
        "to be told when the API server is back: 2 statuses (the oldest for ", "of no use any more: 1 events: no room",
        "it was away from A to B (70 s): refused", "not current: 1 parts, for 90 s at the most",
    ):  # fmt: skip
        assert wanted in text
    calm = {**AUTONOMY, "reached": True, "trouble": None, "passed": [], "missing": [], "scopes": AUTONOMY["scopes"][:1],
            "waiting": {"statuses": 0, "events": 0}, "dropped_why": {"statuses": {}, "events": {}},
            "outages": {"since": None, "untold": None, "last_told": None},
            "node_refused_since": None, "grace_left_s": None}  # fmt: skip
    text = "\n".join(lines({**GOOD, "autonomy": calm}))
    assert "API server reached, since" in text
    assert "not current for 90 s: pods, spec.nodeName=n" in text
    for unwanted in ("not kept", "missing", "to be told", "it was away", "of no use", "certificate"):
        assert unwanted not in text
