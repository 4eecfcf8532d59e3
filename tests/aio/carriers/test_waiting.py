from __future__ import annotations

from dataclasses import replace

import pytest

from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.carriers.peer_key import PeerKey
from tunnel.aio.carriers.places import Places
from tunnel.aio.carriers.waiting import ABOVE_LIMIT, REFUSED, REFUSED_AT_ONCE, TOO_LATE, Waiting

LIMITS = CarrierLimits(waiting=4, waiting_per_address=3, call_timeout_s=10.0)


def peer(port: int, host: str = "192.0.2.1") -> PeerKey:
    return PeerKey.of_text(f"{host}:{port}")


def cut(waiting: Waiting, now_s: float, *there: PeerKey) -> list[tuple[int, str]]:
    return [(victim.peer.port, victim.reason) for victim in waiting.look(now_s, there)]


def test_one_without_a_call_goes_in_time() -> None:
    waiting = Waiting(LIMITS)
    assert cut(waiting, 0.0, peer(1), peer(2)) == []
    waiting.began(peer(2), 0.0)
    assert len(waiting) == 1
    assert cut(waiting, 9.9, peer(1), peer(2)) == []
    assert cut(waiting, 10.0, peer(1), peer(2)) == [(1, TOO_LATE)]
    assert cut(waiting, 10.1, peer(1), peer(2)) == [], "it was told of once"
    assert len(waiting) == 0


def test_a_connection_waits_anew_from_the_end_of_its_last_call() -> None:
    waiting = Waiting(LIMITS)
    waiting.began(peer(1), 0.0)
    waiting.began(peer(1), 0.0)
    waiting.ended(peer(1), 20.0)
    assert waiting.has_call(peer(1))
    waiting.ended(peer(1), 30.0)
    assert not waiting.has_call(peer(1))
    assert cut(waiting, 39.9, peer(1)) == []
    assert cut(waiting, 40.0, peer(1)) == [(1, TOO_LATE)]


def test_a_connection_whose_call_was_refused_goes_when_it_has_no_other() -> None:
    waiting = Waiting(LIMITS)
    waiting.refused(peer(1), 0.0)
    waiting.refused(peer(2), 0.0)
    waiting.began(peer(2), 0.0)
    assert cut(waiting, 0.5, peer(1), peer(2)) == []
    assert cut(waiting, 1.0, peer(1), peer(2)) == [(1, REFUSED)]
    waiting.ended(peer(2), 2.0)
    assert cut(waiting, 2.0, peer(2)) == [(2, REFUSED)]


def test_of_many_refused_ones_the_first_go_soon() -> None:
    waiting = Waiting(replace(LIMITS, waiting=50, waiting_per_address=50))
    numbers = range(1, REFUSED_AT_ONCE + 3)
    for number in numbers:
        waiting.refused(peer(number), number / 1000)
    assert cut(waiting, 0.2, *map(peer, numbers)) == [], "each may read its answer"
    assert cut(waiting, 0.3, *map(peer, numbers)) == [(1, REFUSED), (2, REFUSED)]
    assert cut(waiting, 0.9, *map(peer, numbers[2:])) == []
    assert len(cut(waiting, 1.1, *map(peer, numbers[2:]))) == REFUSED_AT_ONCE


def test_a_port_that_is_used_again_is_another_connection() -> None:
    waiting = Waiting(LIMITS)
    cut(waiting, 0.0, peer(1))
    cut(waiting, 5.0)
    assert cut(waiting, 10.0, peer(1)) == []


def test_of_one_address_the_youngest_go_as_long_as_all_may_be_shaking_hands() -> None:
    waiting = Waiting(LIMITS)
    cut(waiting, 0.0, peer(1), peer(2), peer(3))
    assert cut(waiting, 1.0, peer(1), peer(2), peer(3), peer(4)) == [(4, ABOVE_LIMIT)]


def test_whose_handshake_takes_too_long_makes_room() -> None:
    waiting = Waiting(LIMITS)
    cut(waiting, 0.0, peer(1))
    cut(waiting, 1.0, peer(1), peer(2), peer(3))
    assert cut(waiting, 3.5, peer(1), peer(2), peer(3), peer(4)) == [(1, ABOVE_LIMIT)]


def test_of_a_herd_on_a_slow_server_those_go_that_came_last() -> None:
    """1,000 boxes at once, and 200 more each second, where 100 handshakes a second are done, the oldest first."""
    waiting = Waiting(CarrierLimits(waiting=480, waiting_per_address=480))
    there = {peer(port + 1): 0.0 for port in range(1000)}
    up: list[float] = []
    for tick in range(1, 100):
        now_s = tick / 20
        for done in list(there)[:5]:
            up.append(now_s)
            waiting.began(done, now_s)
            del there[done]
        there |= {peer(1000 + 10 * tick + more): now_s for more in range(10)}
        for victim in waiting.look(now_s, there):
            assert now_s - there.pop(victim.peer) < 0.2, "it had waited, and would have been done soon"
    assert len(up) == 99 * 5, "all that the server has time for"


def test_where_boxes_are_as_many_more_may_come_back_at_once() -> None:
    places = Places()
    for port in range(5):
        places.moved("", f"192.0.2.1:{port}")
    places.moved("192.0.2.1:0", "192.0.2.9:1")
    places.moved("192.0.2.9:1", "")
    waiting = Waiting(LIMITS, places)
    at_home, elsewhere = [peer(port) for port in range(7)], [peer(port, "192.0.2.2") for port in range(1)]
    assert cut(waiting, 0.0, *at_home, *elsewhere) == [], "4 boxes and 3 more; and all that are no boxes are 4"
    gone = cut(waiting, 0.1, *at_home, peer(8), *elsewhere)
    assert gone == [(8, ABOVE_LIMIT)], "one more than its address may have"
    gone = cut(waiting, 0.2, *at_home, *elsewhere, peer(9, "192.0.2.2"))
    assert gone == [(9, ABOVE_LIMIT)], "one more than all may have"


def test_strangers_do_not_wait_for_longer_by_one_box_that_takes_its_time() -> None:
    waiting = Waiting(CarrierLimits(waiting=4, waiting_per_address=4))
    slow, strangers = peer(1), [peer(port) for port in range(10, 14)]
    for second in range(0, 40, 4):
        cut(waiting, float(second), slow)
        waiting.began(slow, second + 3.9)
        waiting.ended(slow, second + 3.9)
        cut(waiting, second + 3.95)
    cut(waiting, 40.0, *strangers)
    ((port, reason),) = cut(waiting, 42.1, *strangers, peer(20))
    assert reason == ABOVE_LIMIT
    assert port != 20, "it has just come"


def test_all_addresses_together() -> None:
    waiting = Waiting(LIMITS)
    crowd = [peer(port, f"192.0.2.{port}") for port in range(1, 8)]
    assert len(cut(waiting, 0.0, *crowd)) == 3
    assert len(waiting) == 4


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1:1", "192.0.2.1:2", True),
        ("192.0.2.1:1", "192.0.2.2:1", False),
        ("[2001:db8::1]:1", "[2001:db8::2]:1", True),
        ("[2001:db8::1]:1", "[2001:db8:0:1::1]:1", False),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1:1", True),
        ("[fe80::1%eth0]:1", "[fe80::1]:1", True),
        ("nonsense", "192.0.2.1:1", False),
    ],
)
def test_who_counts_as_one_client(one: str, other: str, same: bool) -> None:
    assert (PeerKey.of_text(one).client == PeerKey.of_text(other).client) is same


def test_clients_are_named_as_people_do() -> None:
    assert PeerKey.of_text("[::ffff:192.0.2.1]:1").client_text == "192.0.2.1"
    assert PeerKey.of_text("[2001:db8::1]:1").client_text == "2001:db8::/64"
