"""PING and PONG of a session: what this side asks, what it owes, and how long an idle link may be silent
(PROTO 7.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.core.wire import frames as f

NUDGE_S = 1.0
"""Seconds of silence, where the peer is expected to speak, after which one PING goes out. It decides nothing; but where
the end of the link was not passed on (one cut in 250 by gRPC, under load), writing fails at once, not `suspect_after_s`
later.
"""
MAX_IDLE_SILENCE_S = 60.0
"""The longest silence of an idle link, with however many agents: some routers forget what was silent for a
few minutes.
"""


@dataclass(slots=True, kw_only=True)
class PingBudget:
    """How often a server asks all its idle links together for life: the more there are, the rarer each is asked.

    So what a server spends at rest has a bound. Nomad's servers spread their heartbeats in the same way
    (`max_heartbeats_per_second`).
    """

    pings_per_s: float
    links: int = 0
    """How many sessions have a carrier now."""

    def idle_silence_s(self, least_s: float) -> float:
        """Returns how many seconds an idle link may be silent before it is asked about; never less than `least_s`."""
        return max(least_s, min(MAX_IDLE_SILENCE_S, self.links / self.pings_per_s))


class Probes:
    """The questions (PING) and answers (PONG) of one side. Only the newest of each counts."""

    __slots__ = ("_asked", "_budget", "_least_s", "_nudged_s", "_ping", "_ping_sent", "_pong", "idle_silence_s")

    def __init__(self, silence_s: float, budget: PingBudget | None) -> None:
        """`budget` sets the silence of a server's idle links; with None this side heeds what the peer sets."""
        self.idle_silence_s = silence_s
        """Seconds of silence that need no question while no stream is open."""
        self._least_s = silence_s
        self._budget = budget
        self._asked = 0
        self._ping: int | None = None
        self._ping_sent: tuple[int, float] | None = None
        self._pong: int | None = None
        self._nudged_s: float | None = None

    def restart(self) -> None:
        """Forgets all questions and answers: on a new carrier nothing is asked and nothing owed."""
        self._ping = self._ping_sent = self._pong = self._nudged_s = None

    def ask(self) -> None:
        """Queues a PING for the next packet."""
        self._asked += 1
        self._ping = self._asked

    def nudge_s(self, waits_since_s: float | None, heard_s: float) -> float | None:
        """Returns when `on_timer` has a question to ask, one for each silence; None when it has none.

        Args:
            waits_since_s: since when the peer is expected to speak; None when it is not.
            heard_s: when the silence began.
        """
        if waits_since_s is None or self._nudged_s == heard_s:
            return None
        return max(waits_since_s, heard_s) + NUDGE_S

    def on_timer(self, waits_since_s: float | None, heard_s: float, now: float) -> None:
        """Asks a question if the time for it, that of `nudge_s`, has come."""
        due_s = self.nudge_s(waits_since_s, heard_s)
        if due_s is not None and due_s <= now:
            self._nudged_s = heard_s
            self.ask()

    def answer(self, ping: f.Ping) -> None:
        """Queues the PONG to a PING for the next packet."""
        self._pong = ping.nonce

    def answered(self, pong: f.Pong, now: float) -> float | None:
        """Takes a PONG, with the silence that it may set for idle links.

        Returns the round trip in seconds if it answers our newest question, else None.
        """
        if self._budget is None and pong.idle_silence_ms:
            self.idle_silence_s = max(self._least_s, min(pong.idle_silence_ms / 1000, MAX_IDLE_SILENCE_S))
        if self._ping_sent is None or self._ping_sent[0] != pong.nonce:
            return None
        rtt_s = now - self._ping_sent[1]
        self._ping_sent = None
        return rtt_s

    def take(self, now: float) -> list[f.Frame]:
        """Returns the PONG and the PING that are to be sent now, if any, and counts them as sent."""
        probes: list[f.Frame] = []
        if self._pong is not None:
            probes.append(f.Pong(self._pong, self._spread()))
            self._pong = None
        if self._ping is not None:
            probes.append(f.Ping(self._ping))
            self._ping_sent = (self._ping, now)
            self._ping = None
        return probes

    # Internal

    def _spread(self) -> int:
        """Returns what to tell the peer of the silence of idle links, in milliseconds; 0 tells nothing."""
        if self._budget is None:
            return 0
        self.idle_silence_s = self._budget.idle_silence_s(self._least_s)
        return int(self.idle_silence_s * 1000)
