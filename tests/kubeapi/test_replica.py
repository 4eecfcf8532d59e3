"""Replicas: by hand where a rule has a name, and against a model where all of them meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunnel.kubeapi.replica import (
    CHANGE_BYTES,
    HISTORY_CHANGES,
    HISTORY_S,
    LEAST_CHANGES,
    Event,
    Item,
    Replica,
    event_of,
    version_of,
)
from tunnel.kubeapi.status import ApiError
from tunnel.kubeapi.wire_scan import Metadata


def item(name: str, version: int, uid: str = "", label: str = "a", text: bytes = b"") -> Item:
    return Item(Metadata("ns", name, uid or f"{name}-1", str(version), {"l": label}), text, version)


def everything(_item: Item) -> bool:
    return True


def labelled(label: str) -> Callable[[Item], bool]:
    return lambda item: item.metadata.labels["l"] == label


def heard(replica: Replica, position: int, selects: Callable[[Item], bool] = everything) -> list[tuple[str, str, int]]:
    events = (event_of(change, selects) for change in replica.changes_since(position))
    return [(event.kind, event.item.metadata.name, event.version) for event in events if event is not None]


def filled(*items: Item, version: int = 10) -> Replica:
    replica = Replica()
    replica.fill(version, items, 0.0)
    return replica


def test_nothing_is_answered_before_the_first_list() -> None:
    replica = Replica()
    assert replica.version is None
    with pytest.raises(ApiError) as caught:
        replica.position(0)
    assert caught.value.code == 410


def test_who_leaves_a_selection_is_deleted_and_who_enters_it_added() -> None:
    replica = filled(item("x", 3), item("y", 4, label="b"))
    start = replica.position(10)
    replica.put(item("x", 11, label="b"), 1.0)
    replica.put(item("y", 12, label="a"), 1.0)
    replica.put(item("y", 13, label="a", text=b"other"), 1.0)
    replica.remove(("ns", "x"), 14, 1.0)
    assert heard(replica, start, labelled("a")) == [("DELETED", "x", 11), ("ADDED", "y", 12), ("MODIFIED", "y", 13)]
    assert heard(replica, start, labelled("b")) == [("ADDED", "x", 11), ("DELETED", "y", 12), ("DELETED", "x", 14)]


def test_a_new_list_is_told_as_what_differs() -> None:
    replica = filled(item("same", 3), item("changed", 4), item("gone", 5), item("again", 6))
    start = replica.position(10)
    replica.fill(20, [item("same", 3), item("changed", 15), item("new", 12), item("again", 18, uid="again-2")], 1.0)
    assert heard(replica, start) == [
        ("ADDED", "new", 12),
        ("MODIFIED", "changed", 15),
        ("DELETED", "again", 18),
        ("ADDED", "again", 18),
        ("DELETED", "gone", 20),
    ]
    assert [one.metadata.name for one in replica.items(everything)] == ["again", "changed", "new", "same"]


def test_whoever_is_cut_off_between_changes_of_one_version_hears_the_rest() -> None:
    replica = filled(item("a", 3), item("b", 4), item("c", 5, uid="c-1"))
    replica.fill(20, [item("c", 15, uid="c-2")], 1.0)
    assert heard(replica, replica.position(15)) == [("ADDED", "c", 15), ("DELETED", "a", 20), ("DELETED", "b", 20)]
    assert heard(replica, replica.position(20)) == [("DELETED", "a", 20), ("DELETED", "b", 20)]
    replica.put(item("a", 21, uid="a-2"), 2.0)
    assert heard(replica, replica.position(20)) == [("DELETED", "a", 20), ("DELETED", "b", 20), ("ADDED", "a", 21)]


def test_what_was_heard_before_is_no_change() -> None:
    replica = filled(item("x", 3))
    assert replica.put(item("x", 3), 1.0) == []
    assert replica.remove(("ns", "never"), 11, 1.0) == []
    assert replica.version == 11
    replica.reached(15)
    replica.reached(12)
    assert replica.version == 15


def test_what_is_altered_here_ends_the_past_of_those_who_come_back_and_outlives_a_list() -> None:
    replica = filled(item("x", 3))
    running = replica.position(None)
    replica.alter(item("x", 3, text=b"known better"), 1.0)
    assert heard(replica, running) == [("MODIFIED", "x", 3)]
    with pytest.raises(ApiError) as caught:
        replica.position(10)
    assert caught.value.code == 410
    replica.fill(12, [item("x", 3)], 2.0)
    kept = replica.get(("ns", "x"))
    assert kept is not None
    assert kept.raw == b"known better"
    assert heard(replica, replica.position(12)) == []
    replica.put(item("x", 13, text=b"the server's"), 3.0)
    assert heard(replica, replica.position(12)) == [("MODIFIED", "x", 13)]


def test_another_form_of_the_same_version_is_shown_and_is_no_change() -> None:
    replica = filled(item("x", 3))
    replica.fill(12, [item("x", 3, text=b"with a new default")], 2.0)
    kept = replica.get(("ns", "x"))
    assert kept is not None
    assert kept.raw == b"with a new default"
    assert heard(replica, replica.position(10)) == []


def test_what_is_forgotten_here_may_be_known_to_a_server_unless_it_was_altered() -> None:
    replica = filled(item("x", 3), version=10)
    assert replica.has_forgotten(9)
    assert not replica.has_forgotten(10)
    replica.alter(item("x", 3, text=b"known better"), 1.0)
    assert not replica.has_forgotten(9)


def test_the_past_is_kept_as_long_as_a_server_keeps_it_and_bounded_in_bytes() -> None:
    replica = filled()
    for version in range(11, 11 + 3 * HISTORY_CHANGES):
        replica.put(item("x", version), 1.0)
    assert len(heard(replica, replica.position(10))) == 3 * HISTORY_CHANGES
    replica.put(item("x", 1000), 1.0 + HISTORY_S + 0.1)
    with pytest.raises(ApiError):
        replica.position(10)
    assert len(heard(replica, replica.position(10 + 2 * HISTORY_CHANGES + 1))) == HISTORY_CHANGES

    small = Replica(history_bytes=3 * (CHANGE_BYTES + 1000))
    small.fill(10, [item("x", 3, text=b"x" * 1000)], 0.0)
    behind = small.position(10)
    for version in range(11, 17):
        small.put(item("x", version, text=b"x" * 1000), 1.0)
    assert len(heard(small, small.position(12))) == LEAST_CHANGES, "these are kept however large they are"
    for late in (lambda: small.position(11), lambda: small.changes_since(behind)):
        with pytest.raises(ApiError):
            late()


def test_deletions_of_one_list_are_heard_as_a_whole_or_the_past_is_gone() -> None:
    """They have one version, so that it does not tell how many of them a watch had heard."""
    replica = filled(*(item(f"x{number}", 3) for number in range(200)))
    replica.fill(20, [], 1.0)
    assert len(heard(replica, replica.position(20))) == 200
    replica.put(item("y", 21), 2.0 + HISTORY_S)
    with pytest.raises(ApiError):
        replica.position(20)
    assert len(heard(replica, replica.position(21))) == 0


@pytest.mark.parametrize("text", ["", "-1", "x", "1.0", "\u0661", "9" * 40])
def test_versions_that_cannot_be_compared_are_told(text: str) -> None:
    with pytest.raises(ValueError, match="resourceVersion"):
        version_of(text)


# The model

View = dict[str, tuple[str, int]]


def view_of(items: Iterable[Item]) -> View:
    return {one.metadata.name: (one.metadata.uid, one.version) for one in items}


@dataclass
class Client:
    """What an informer keeps: the objects, where its watch is, and the version that it would come back at."""

    label: str
    view: View
    position: int
    version: int
    came_back: bool = False
    """Whether it may hear again what it knows: it has come back, and has not caught up since."""
    fresh: set[str] = field(default_factory=set)


class Replicated(RuleBasedStateMachine):
    """A server changes, its replica follows, is cut off and is filled anew; clients watch the replica, are cut off and
    come back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.server: dict[str, Item] = {}
        self.at = 10
        self.uids = 0
        self.past: list[tuple[str, Item, int]] = []
        self.replica = Replica(history_bytes=12 * CHANGE_BYTES)
        self.replica.fill(10, [], 0.0)
        self.clients: list[Client] = []

    # The server

    @rule(name=st.sampled_from("abcd"), label=st.sampled_from("pq"))
    def put(self, name: str, label: str) -> None:
        self.at += 1
        known = self.server.get(name)
        if known is None:
            self.uids += 1
        uid = known.metadata.uid if known is not None else f"uid-{self.uids}"
        self.server[name] = item(name, self.at, uid, label)
        self.past.append(("PUT", self.server[name], self.at))

    @rule(name=st.sampled_from("abcd"))
    def delete(self, name: str) -> None:
        if (known := self.server.pop(name, None)) is not None:
            self.at += 1
            self.past.append(("DELETED", known, self.at))

    # The replica

    @rule(count=st.integers(1, 4))
    def follow(self, count: int) -> None:
        for kind, what, version in self.past[:count]:
            if kind == "PUT":
                self.replica.put(what, 1.0)
            else:
                self.replica.remove(what.key, version, 1.0)
        del self.past[:count]

    @rule()
    def fill(self) -> None:
        self.past.clear()
        self.replica.fill(self.at, self.server.values(), 1.0)

    @rule(names=st.sets(st.sampled_from("abcd"), min_size=2))
    def lose_and_fill(self, names: set[str]) -> None:
        for name in sorted(names):
            if self.server.pop(name, None) is not None:
                self.at += 1
        self.fill()

    @rule()
    def bookmark(self) -> None:
        if not self.past:
            self.replica.reached(self.at)

    # Clients

    @precondition(lambda self: len(self.clients) < 3)
    @rule(label=st.sampled_from("pq*"))
    def begin(self, label: str) -> None:
        client = Client(label, {}, 0, 0)
        self._list(client)
        self.clients.append(client)

    @precondition(lambda self: self.clients)
    @rule(count=st.integers(1, 3), data=st.data())
    def read(self, count: int, data: st.DataObject) -> None:
        self._read(data.draw(st.sampled_from(self.clients)), count)

    @precondition(lambda self: self.clients)
    @rule(count=st.integers(0, 2), data=st.data())
    def come_back(self, count: int, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.clients))
        self._read(client, count)
        try:
            client.position = self.replica.position(client.version)
            client.came_back = True
        except ApiError:
            self._list(client)

    @invariant()
    def the_replica_shows_what_the_server_had_then(self) -> None:
        state = dict(self.server)
        for _, what, _ in reversed(self.past):
            state.pop(what.metadata.name, None)
        known = view_of(self.replica.items(everything))
        changed = {what.metadata.name for _, what, _ in self.past}
        assert {name: one for name, one in known.items() if name not in changed} == {
            name: one for name, one in view_of(state.values()).items() if name not in changed
        }

    def teardown(self) -> None:
        for client in self.clients:
            while self._read(client, 5):
                pass
            assert client.view == view_of(self.replica.items(self._selects(client)))

    # Internal

    def _selects(self, client: Client) -> Callable[[Item], bool]:
        return everything if client.label == "*" else labelled(client.label)

    def _list(self, client: Client) -> None:
        assert self.replica.version is not None
        client.view = view_of(self.replica.items(self._selects(client)))
        client.position, client.version = self.replica.position(None), self.replica.version
        client.came_back = False

    def _read(self, client: Client, count: int) -> bool:
        try:
            changes = self.replica.changes_since(client.position, count)
        except ApiError:
            self._list(client)
            return True
        for change in changes:
            client.position += 1
            event = event_of(change, self._selects(client))
            if event is not None:
                self._hear(client, event)
        if not changes:
            client.came_back = False
        return bool(changes)

    def _hear(self, client: Client, event: Event) -> None:
        name, uid = event.item.metadata.name, event.item.metadata.uid
        known = client.view.get(name)
        assert event.version >= client.version
        if event.kind == "DELETED":
            assert client.came_back or (known is not None and known[0] == uid)
            client.view.pop(name, None)
        else:
            is_known = known is not None and known[0] == uid
            assert client.came_back or is_known is (event.kind == "MODIFIED")
            assert known is None or is_known, "another object of the name was there"
            client.view[name] = uid, event.item.version
        client.version = event.version


TestReplicated = Replicated.TestCase
TestReplicated.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
