"""tunnel.core.streams.budget: nested pools, and that those who stall leave room for those who read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.streams.budget import Budget
from tunnel.core.wire.limits import KIB, MIB


def test_first_windows_are_as_wanted_and_shrink_to_the_floor() -> None:
    budget = Budget(total_bytes=64 * MIB)
    windows = [budget.initial_window(256 * KIB, 4 * KIB) for _ in range(5000)]
    assert windows[0] == 256 * KIB
    assert windows[4999] == 4 * KIB
    assert windows == sorted(windows, reverse=True)
    assert budget.used_bytes == sum(windows) < 64 * MIB


def test_thousands_who_stall_leave_room_to_grow() -> None:
    budget = Budget(total_bytes=64 * MIB)
    for _ in range(1000):
        budget.initial_window(256 * KIB, 4 * KIB)
    assert budget.try_grow(8 * MIB, proven=True)
    assert budget.try_grow(4 * MIB, proven=True)


def test_nothing_is_given_when_all_is_gone() -> None:
    budget = Budget(total_bytes=10)
    assert budget.initial_window(8, 8) == 8
    assert budget.initial_window(8, 8) == 0
    assert budget.used_bytes == 8
    assert Budget(total_bytes=0).initial_window(8, 1) == 0


def test_the_last_quarter_is_for_those_that_are_proven_to_read() -> None:
    process = Budget(total_bytes=80)
    budget = Budget(total_bytes=800, parent=process)
    assert not budget.try_grow(1, proven=False), "the process has less than a quarter of the session's"
    budget = Budget(total_bytes=80, parent=process)
    assert budget.try_grow(30, proven=False)
    assert budget.try_grow(10, proven=False)
    assert not budget.try_grow(1, proven=False)
    assert budget.try_grow(10, proven=True)


def test_growth_leaves_as_much_again_above_the_quarter_for_those_to_come() -> None:
    budget = Budget(total_bytes=80)
    assert not budget.try_grow(31, proven=True)
    assert budget.try_grow(30, proven=True)
    assert budget.used_bytes == 30
    assert not budget.try_grow(16, proven=True)
    assert budget.try_grow(15, proven=True)


def test_those_who_grew_before_they_stalled_keep_nobody_out() -> None:
    process = Budget(total_bytes=128 * MIB)
    budget = Budget(total_bytes=64 * MIB, parent=process)
    for _ in range(1000):
        window = budget.initial_window(256 * KIB, 4 * KIB)
        while window < 16 * MIB and budget.try_grow(window, proven=True):
            window *= 2
    assert all(budget.initial_window(256 * KIB, 4 * KIB) for _ in range(1000))


def test_sessions_share_the_pool_of_the_process() -> None:
    process = Budget(total_bytes=100)
    one = Budget(total_bytes=80, parent=process)
    two = Budget(total_bytes=80, parent=process)
    one.reserve(70)
    assert two.available_bytes == 30
    assert one.available_bytes == 10
    assert two.initial_window(50, 20) == 20
    assert two.initial_window(50, 20) == 0
    one.release(70)
    two.release(20)
    assert (one.used_bytes, two.used_bytes, process.used_bytes) == (0, 0, 0)


def test_the_process_keeps_its_parts_too() -> None:
    process = Budget(total_bytes=256 * KIB)
    session = Budget(total_bytes=64 * MIB, parent=process)
    assert session.initial_window(256 * KIB, 1) == 3 * KIB
    assert not session.try_grow(95 * KIB, proven=True)
    assert session.try_grow(94 * KIB, proven=True)
    assert session.rooms() == process.rooms() == (95 * KIB, 32 * KIB)


def test_what_is_held_takes_the_room_of_queues_before_that_of_windows() -> None:
    process = Budget(total_bytes=80 * MIB)
    budget = Budget(total_bytes=80 * MIB, parent=process)
    budget.hold(20 * MIB)
    assert (budget.held_bytes, process.held_bytes, process.used_bytes) == (20 * MIB,) * 3
    assert budget.rooms() == (40 * MIB, -10 * MIB)
    assert budget.initial_window(256 * KIB, 4 * KIB) == 256 * KIB, "what is in flight costs newcomers nothing"
    budget.hold(40 * MIB)
    assert not budget.try_grow(1, proven=True)
    assert budget.initial_window(256 * KIB, 4 * KIB) == 4 * KIB
    budget.hold(-60 * MIB)
    assert process.held_bytes == 0
    assert process.used_bytes == 260 * KIB


@given(st.lists(st.tuples(st.sampled_from(["new", "grow", "close"]), st.integers(1, 500)), max_size=60))
def test_never_more_than_the_total(steps: list[tuple[str, int]]) -> None:
    process = Budget(total_bytes=2000)
    budget = Budget(total_bytes=1500, parent=process)
    held: list[int] = []
    for what, count in steps:
        if what == "new":
            held.append(budget.initial_window(count, min(count, 50)))
        elif what == "grow" and budget.try_grow(count, proven=True):
            held.append(count)
        elif what == "close" and held:
            budget.release(held.pop())
        assert 0 <= budget.used_bytes == process.used_bytes == sum(held) <= 1500
