"""Keeps what the box knows and the cloud cannot: that its clock is wrong, that DNS fails, that a part of it is down.

Each fact has the code of its cause. It is told to the server at the next contact, and once it is over it is kept for a
while with its end: most of them are why there was no contact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from protos import tunnel_pb2
from tunnel.core.wire.faults import Fault
from tunnel.core.wire.limits import MAX_FACT_TEXT_BYTES, MAX_FACTS

KEPT_FOR = timedelta(hours=1)
"""How long a fact that is over is still told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxFact:
    """A fact about the box: something that is so, or was a short while ago."""

    code: str
    """The code of the cause, such as `LL2018`."""
    text: str
    """The fact for people, in one line."""
    since: datetime
    until: datetime | None = None
    """When it ended; None: it is still so."""

    def as_json(self) -> dict[str, object]:
        """Returns the fact as the admin API shows it."""
        return {"code": self.code, "text": self.text, "since": self.since, "until": self.until}


class Facts:
    """The facts of one process: the latest of each topic."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Begins without facts; `on_change` is called when there is something new to tell, and must not block."""
        self.on_change = on_change
        self._facts: dict[str, BoxFact] = {}

    def set(self, topic: str, fault: Fault, text: str) -> None:
        """Notes that something is so now; it takes the place of the topic's earlier fact."""
        known = self._facts.get(topic)
        going_on = known is not None and known.until is None and known.code == fault.code
        if known is not None and going_on and known.text == text:
            return
        since = known.since if known is not None and going_on else datetime.now(UTC)
        self._facts[topic] = BoxFact(code=fault.code, text=text, since=since)
        self.on_change()

    def was(self, topic: str, fault: Fault, text: str, since: datetime) -> None:
        """Notes that something was so until now."""
        self._facts[topic] = BoxFact(code=fault.code, text=text, since=since, until=datetime.now(UTC))
        self.on_change()

    def clear(self, topic: str) -> None:
        """Notes that the topic's fact is not so any more."""
        known = self._facts.get(topic)
        if known is not None and known.until is None:
            self._facts[topic] = replace(known, until=datetime.now(UTC))
            self.on_change()

    def only(self, prefix: str, current: dict[str, tuple[Fault, str]]) -> None:
        """Makes these all the facts whose topics begin with `prefix`: `{what follows it: (cause, text)}`."""
        for name, (fault, text) in current.items():
            self.set(prefix + name, fault, text)
        for topic in [topic for topic in self._facts if topic.startswith(prefix)]:
            if topic.removeprefix(prefix) not in current:
                self.clear(topic)

    def all(self) -> list[BoxFact]:
        """Returns what is so, and what was a short while ago; the latest first."""
        now = datetime.now(UTC)
        self._facts = {
            topic: fact for topic, fact in self._facts.items() if fact.until is None or now - fact.until < KEPT_FOR
        }
        return sorted(self._facts.values(), key=lambda fact: (fact.until is None, fact.since), reverse=True)

    def current(self) -> list[BoxFact]:
        """Returns what is so now; the latest first."""
        return [fact for fact in self.all() if fact.until is None]


def on_the_wire(facts: list[BoxFact]) -> list[tunnel_pb2.Fact]:
    """Returns facts as Node has them, as many as it may have."""
    return [
        tunnel_pb2.Fact(
            code=fact.code,
            text=fact.text.encode()[:MAX_FACT_TEXT_BYTES].decode("utf-8", "ignore"),
            since_s=int(fact.since.timestamp()),
            until_s=int(fact.until.timestamp()) if fact.until is not None else 0,
        )
        for fact in facts[:MAX_FACTS]
    ]
