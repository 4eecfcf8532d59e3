"""tunnel.core.path.cuts: a queue of ours shrinks as what is in flight does; one that does not is another's."""

from __future__ import annotations

from tunnel.core.path.cuts import Cuts


def test_a_queue_that_stays_though_half_as_much_is_in_flight_is_not_ours() -> None:
    cuts = Cuts()
    assert cuts.in_vain(0.3, 100_000, 100_000.0) is None
    assert cuts.in_vain(0.3, 60_000, 60_000.0) is None, "not yet cut enough to tell"
    assert cuts.in_vain(0.29, 40_000, 40_000.0) == 100_000.0
    assert cuts.in_vain(0.3, 40_000, 100_000.0) is None, "the next is the first again"


def test_a_queue_that_shrinks_is_ours_and_the_row_goes_on_from_there() -> None:
    cuts = Cuts()
    cuts.in_vain(0.3, 100_000, 100_000.0)
    assert cuts.in_vain(0.2, 40_000, 40_000.0) is None
    assert cuts.in_vain(0.2, 20_000, 20_000.0) == 40_000.0


def test_the_longest_queue_of_a_row_is_what_it_is_judged_by() -> None:
    cuts = Cuts()
    cuts.in_vain(0.2, 100_000, 100_000.0)
    cuts.in_vain(0.4, 90_000, 90_000.0)
    assert cuts.in_vain(0.2, 45_000, 45_000.0) is None
    cuts = Cuts()
    cuts.in_vain(0.2, 100_000, 100_000.0)
    assert cuts.in_vain(0.2, 45_000, 45_000.0) == 100_000.0


def test_a_queue_that_is_gone_is_forgotten() -> None:
    cuts = Cuts()
    cuts.in_vain(0.3, 100_000, 100_000.0)
    cuts.forget()
    assert cuts.in_vain(0.3, 40_000, 40_000.0) is None
