"""What is shown, and when that has changed."""

from __future__ import annotations

from collections.abc import Mapping

from cloud_server.frontends.fleet.sight import Sight, Visible

LABELS: dict[str, dict[str, str]] = {"a": {"site": "a"}, "b": {"site": "b"}}


class Rights:
    """Rights that a test changes."""

    def __init__(self, site: str | None) -> None:
        self.site = site
        self.labels = {name: dict(labels) for name, labels in LABELS.items()}

    def find(self) -> Visible | None:
        site = self.site
        return None if site is None else lambda _agent, labels: labels.get("site") == site

    def labels_of(self, agent: str) -> Mapping[str, str]:
        return self.labels.get(agent, {})

    def sight(self) -> Sight:
        sight = Sight(self.find, self.labels_of)
        sight.look(self.labels)
        return sight


def test_an_answer_stays_until_it_is_asked_anew() -> None:
    rights = Rights("a")
    sight = rights.sight()
    assert [sight.shows(name) for name in ("a", "b", "c")] == [True, False, False]
    rights.labels["b"]["site"] = "a"
    assert not sight.shows("b")
    assert sight.relabel(["b"])
    assert sight.shows("b")


def test_other_labels_that_mean_the_same_and_boxes_that_were_never_seen_change_nothing() -> None:
    rights = Rights("a")
    sight = rights.sight()
    rights.labels["b"]["rack"] = "7"
    rights.labels["new"] = {"site": "a"}
    assert not sight.relabel(["b", "new"])
    assert sight.shows("new")


def test_other_rights() -> None:
    rights = Rights("a")
    sight = rights.sight()
    assert not sight.renew()
    rights.site = "b"
    assert sight.renew()
    rights.site = None
    assert sight.renew(), "what was not asked for is shown now, too"
    assert (sight.everything, sight.renew(), sight.relabel(["a"])) == (True, False, False)
    rights.site = "a"
    assert sight.renew()
