"""What is counted of the link, and which of its absences become facts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from edge_agent.operate.facts import Facts
from edge_agent.operate.link_book import QUIET_S, LinkBook
from tunnel.aio.carriers.carrier_errors import CarrierLost
from tunnel.core.wire.errors import Code, SessionRefused
from tunnel.core.wire.faults import PROXY_REFUSED, SERVER_NAME_NOT_FOUND


def test_links_losses_and_failures_are_counted_by_cause() -> None:
    ups: list[int] = []
    book = LinkBook(Facts(), lambda: ups.append(1))
    book.failed(CarrierLost("no such name", SERVER_NAME_NOT_FOUND))
    book.failed(SessionRefused("revoked", Code.IDENTITY_REJECTED))
    book.up(resumed=False)
    book.lost(CarrierLost("connection reset"))
    book.up(resumed=True)
    book.lost(None)
    assert (book.ups[True], book.ups[False], len(ups)) == (1, 1, 1)
    assert book.failures == {"LL3001": 1, "LL2014": 1}
    assert book.losses == {"LL3012": 1, "LL3018": 1}


def test_a_long_absence_is_a_fact_with_its_cause_and_a_short_one_is_none() -> None:
    facts = Facts()
    book = LinkBook(facts, lambda: None)
    book.failed(CarrierLost("the proxy says no", PROXY_REFUSED))
    book.up(resumed=False)
    assert facts.all() == []
    book.lost(None)
    book.away_since = datetime.now(UTC) - timedelta(seconds=QUIET_S + 60)
    book.failed(CarrierLost("the proxy says no", PROXY_REFUSED))
    book.up(resumed=True)
    (fact,) = facts.all()
    assert (fact.code, fact.text) == ("LL3003", f"the box had no link for {QUIET_S + 60:.0f} s: the proxy says no")
    assert fact.until is not None
    assert book.away_since is None


def test_dns_is_a_fact_while_it_fails() -> None:
    facts = Facts()
    book = LinkBook(facts, lambda: None)
    book.dns("cloud.test does not resolve")
    assert [fact.code for fact in facts.current()] == ["LL3001"]
    book.dns("")
    assert facts.current() == []
