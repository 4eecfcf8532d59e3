"""Takes the pods of one box's list, one after the other, and leaves out what is no pod or more than a box may have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from cloud_server.frontends.fleet.pod_fields import NAMES, Faults, Unfit
from cloud_server.frontends.fleet.pod_limits import SHARE_BYTES, PodLimits
from cloud_server.frontends.fleet.pod_names import key_of
from cloud_server.frontends.fleet.pods import is_of_box, pod_of
from tunnel.core.wire.spoken import printable
from tunnel.kubeapi.encoding import decode
from tunnel.kubeapi.held import held_bytes, sharing
from tunnel.kubeapi.status import Json
from tunnel.kubeapi.store import Key

INCOMPLETE = "PodsIncomplete"
"""The condition of a Node whose box listed pods that are not shown, or not as the box listed them."""
MALFORMED, TOO_MANY, TOO_LARGE, NO_ROOM = "Malformed", "TooMany", "TooLarge", "NoRoom"
"""The reasons of the condition, the gravest first."""
MAX_NAMED = 3
"""How many of the pods that are left out the condition names."""
_TEXTS = {
    MALFORMED: "are no pods of Kubernetes, or listed twice",
    TOO_MANY: "are more than a box may have, or in more namespaces",
    TOO_LARGE: "are too large, or take too much together",
    NO_ROOM: "have no room beside those of all other boxes",
}


@dataclass(slots=True)
class Listed:
    """What was taken of a box's list."""

    pods: list[Json]
    held_bytes: int
    """The memory that the pods take."""
    incomplete: Json | None
    """The condition that tells what is not shown, without times; None when all is."""


@dataclass(slots=True)
class PodListing:
    """The pods of one list so far. Each is taken by `add` as it comes in; `finish` ends it."""

    agent: str
    limits: PodLimits
    before: Mapping[Key, Json]
    """The pods of the list before. Those that have not changed are taken from there."""
    _pods: dict[Key, tuple[Json, int]] = field(default_factory=dict)
    """Each pod with the memory that it takes."""
    _held: int = 0
    _namespaces: set[str] = field(default_factory=set)
    _faults: Faults = field(default_factory=Faults)
    _left_out: Counter[str] = field(default_factory=Counter)
    """How many pods were left out, by the reason."""
    _named: list[str] = field(default_factory=list)

    # Public

    def add(self, text: bytes) -> None:
        """Takes a pod as the kubelet wrote it, or leaves it out."""
        try:
            pod = pod_of(decode(text), self.agent, self._faults)
        except (Unfit, ValueError):
            self._leave_out(MALFORMED)
            return
        key = key_of(pod)
        if key in self._pods:
            self._leave_out(MALFORMED, pod)
        elif is_of_box(pod, self.agent):
            self._take(key, pod)
        elif len(self._pods) >= self.limits.pods or (
            key[0] not in self._namespaces and len(self._namespaces) >= self.limits.namespaces
        ):
            self._leave_out(TOO_MANY, pod)
        else:
            self._take(key, pod)

    def too_large(self, count: int) -> None:
        """Notes pods that were longer than what is read of one."""
        self._left_out[TOO_LARGE] += count

    def finish(self, others_bytes: int) -> Listed:
        """Ends the list, and returns what is shown of it.

        `others_bytes`: how much memory the pods of all other boxes take.
        """
        room = max(SHARE_BYTES, self.limits.all_bytes - others_bytes)
        self._shorten(min(room, self.limits.box_bytes), NO_ROOM if room < self.limits.box_bytes else TOO_LARGE)
        return Listed([pod for pod, _ in self._pods.values()], self._held, self._incomplete())

    # Internal

    def _take(self, key: Key, pod: Json) -> None:
        pod = cast("Json", sharing(self.before[key], pod)[0]) if key in self.before else pod
        size = held_bytes(pod, NAMES)
        self._pods[key] = pod, size
        self._held += size
        self._namespaces.add(key[0])
        if self._held > 2 * self.limits.box_bytes:  # it is looked at once more at the end; until then it is bounded
            self._shorten(self.limits.box_bytes, TOO_LARGE)

    def _shorten(self, room_bytes: int, reason: str) -> None:
        """Leaves out the last pods, the box's own pod after all others, until the rest has room."""
        own = [key for key, (pod, _) in self._pods.items() if is_of_box(pod, self.agent)]
        for key in [*own, *(key for key in self._pods if key not in own)][::-1]:
            if self._held <= room_bytes:
                return
            pod, size = self._pods.pop(key)
            self._held -= size
            self._leave_out(reason, pod)

    def _leave_out(self, reason: str, pod: Json | None = None) -> None:
        self._left_out[reason] += 1
        if pod is not None and len(self._named) < MAX_NAMED:
            self._named.append("/".join(key_of(pod)))

    def _incomplete(self) -> Json | None:
        reasons = [reason for reason in _TEXTS if self._left_out[reason]]
        told = [f"{self._left_out[reason]} of its pods {_TEXTS[reason]}" for reason in reasons]
        if self._named:
            told[-1] += f" ({', '.join(self._named)}{', ...' if self._left_out.total() > len(self._named) else ''})"
        if self._faults.count:
            told.append(f"{self._faults.count} fields are not as the API has them ({', '.join(self._faults.names)})")
        if not told:
            return None
        reason = reasons[0] if reasons else MALFORMED
        return {"type": INCOMPLETE, "status": "True", "reason": reason, "message": printable("; ".join(told))}
