"""Decides which boxes a caller is shown, in lists, watches and single objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tunnel.kubeapi.status import ApiError, Json

Visible = Callable[[str, Mapping[str, str]], bool]
"""A function that tells whether a box is shown, by its name and labels; see `Rights.agents_visible`."""


class Sight:
    """The boxes that one caller is shown, for one request. An answer about a box stays the same until `renew`."""

    __slots__ = ("_decided", "_find", "_labels_of", "_visible")

    def __init__(self, find: Callable[[], Visible | None], labels_of: Callable[[str], Mapping[str, str]]) -> None:
        """Calls `find` now, and again at each `renew`, for what tells whether a box is shown.

        A result of None shows all boxes, without cost.
        """
        self._find = find
        self._labels_of = labels_of
        self._visible = find()
        self._decided: dict[str, bool] = {}

    @property
    def everything(self) -> bool:
        """Returns whether all boxes are shown."""
        return self._visible is None

    def shows(self, agent: str) -> bool:
        """Returns whether a box is shown."""
        if self._visible is None:
            return True
        shown = self._decided.get(agent)
        if shown is None:
            shown = self._decided[agent] = self._visible(agent, self._labels_of(agent))
        return shown

    def look(self, agents: Iterable[str]) -> None:
        """Decides about these boxes now, so that `renew` can tell what has changed."""
        if self._visible is not None:
            for agent in agents:
                self.shows(agent)

    def relabel(self, agents: Iterable[str]) -> bool:
        """Decides again about boxes that have other labels. Returns whether any of these answers has changed."""
        known = [(agent, was) for agent in agents if (was := self._decided.pop(agent, None)) is not None]
        return any(self.shows(agent) is not was for agent, was in known)

    def renew(self) -> bool:
        """Goes by the present rights and labels. Returns whether what is shown has changed, or may have."""
        everything, before = self.everything, self._decided
        self._visible, self._decided = self._find(), {}
        if everything is not self.everything:
            return True
        return any(self.shows(agent) is not was for agent, was in before.items())


def agent_of(item: Json) -> str:
    """Returns the box that an object belongs to; empty for an object that belongs to none, such as a namespace."""
    match item["kind"]:
        case "Pod":
            agent = item["spec"]["nodeName"]
        case "Event":
            agent = item["source"]["host"]
        case "Node" | "Lease":
            agent = item["metadata"]["name"]
        case _:
            agent = ""
    return str(agent)


def sight_changed() -> ApiError:
    """Returns the error 410 that ends a watch whose client must list again."""
    return ApiError(410, "what you may see has changed: list again")
