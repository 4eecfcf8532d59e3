"""Keeps the object store in step with the registry and the agents' kubelets: nodes at once, pods while somebody looks.

Pods cost a request over the box's link, so they are asked for when an agent connects, and again only while somebody
lists, gets or watches pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from cloud_server.agents.agents import AgentView, Change
from cloud_server.agents.feed import FollowerTooSlow
from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.events import event_objects
from cloud_server.frontends.fleet.interfaces import Agents
from cloud_server.frontends.fleet.kubelet import KubeletReader
from cloud_server.frontends.fleet.namespaces import Namespaces
from cloud_server.frontends.fleet.objects import node_object, timestamp
from cloud_server.frontends.fleet.pod_limits import MAX_LIST_BYTES, MAX_POD_BYTES, PodLimits
from cloud_server.frontends.fleet.pod_listing import Listed, PodListing
from cloud_server.frontends.fleet.pod_names import box_of, key_of, shown_name
from cloud_server.frontends.fleet.pods import away, is_settled, offers_kubelet, sources_missing, stand_in
from tunnel.aio.process.limit_use import LimitUse, most
from tunnel.core.wire.faults import BUG, KUBELET_SILENT, PODS_INCOMPLETE
from tunnel.kubeapi.listing import ListSplitter
from tunnel.kubeapi.status import ApiError, Json
from tunnel.kubeapi.store import Key, ObjectStore

RECONCILE_S = 60.0
"""Seconds between two comparisons with the registry as a whole, which find agents that joined and have not connected
yet.
"""
REFRESH_S = 5.0
"""Seconds between two looks for pods that are stale."""
STALE_S = 15.0
"""Age in seconds from which pods are asked for again while somebody looks."""
UNSETTLED_S = 2.0
"""Age in seconds from which pods are asked for again while one of them is on its way to run or to its end, or the
kubelet could not be asked.
"""
INTEREST_S = 30.0
"""Seconds after a look at pods during which somebody counts as looking."""
FRESH_S = 2.0
"""Age in seconds that a single pod that is asked for by name has at most, if the agent answers soon."""
FRESHEN_WAIT_S = 1.0
PODS_TIMEOUT_S = 20.0
"""Seconds that a box may take to list its pods."""
LEAST_PAUSE_S = 0.5
"""Seconds between the beginnings of two lists of one box at least, however often it connects. After a long list they
are more; see `PodLimits.read_bytes_per_s`.
"""
SLOW_PAUSES = 5.0
"""How many times as long as a box took for its list it is left alone, so that slow ones leave room for others."""
PARALLEL_FETCHES = 32
PODS_AT_A_TIME = 16
"""How many pods are compared with the store before others have their turn: new ones cost some 60 us each."""
TELL_EVERY_S = 3600.0
"""Seconds between two log lines about what a box lists and is not shown; its Node says it all the time."""
AGENTS_AT_A_TIME = 50
"""How many agents are compared before others have their turn: new ones cost 60 us each, and thousands together would
hold up every stream.
"""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """The state that the mirror keeps of one agent."""

    view: AgentView
    created: datetime
    shown: object = None
    """The parts of the view that the agent's objects are made of, as they were when these were made."""
    connection: object = None
    """A value that tells one connection of the agent from the next; None while it is away."""
    pods: list[Json] | None = None
    """The pods as the agent's kubelet listed them last; None when it has never been asked with success."""
    fetched_at_s: float = float("-inf")
    """The loop time of the last attempt to fetch the pods."""
    next_fetch_s: float = float("-inf")
    """The loop time before which the pods are not fetched again."""
    fetching: asyncio.Task[None] | None = None
    held_bytes: int = 0
    """The memory that `pods` take."""
    namespaces: int = 0
    """How many namespaces `pods` are in."""
    incomplete: Json | None = None
    """The condition that tells which pods are not shown; None when all are."""
    told_s: float = float("-inf")
    """The loop time at which the log told of that last."""
    publishing: int = 0
    """The number of the latest attempt to bring the store up to date; an earlier one that is under way ends."""
    owned: set[Key] = field(default_factory=set)
    """The keys of the agent's pods in the store."""
    events: set[Key] = field(default_factory=set)
    """The keys of the agent's events in the store."""


class Mirror:
    """Follows the registry of agents, and keeps their objects in the store. `run` must be running."""

    def __init__(
        self,
        agents: Agents,
        kubelets: KubeletReader,
        store: ObjectStore,
        clock: Callable[[], datetime],
        forgotten: Callable[[str], None] = lambda _agent: None,
        limits: PodLimits = PodLimits(),  # noqa: B008  # immutable
    ) -> None:
        """Follows nothing until `run`. `forgotten` is called with the name of each agent that is gone for good."""
        self.limits = limits
        """What boxes may have; lists that are read from now on are held to it."""
        self._forgotten = forgotten
        self._agents = agents
        self._kubelets = kubelets
        self._store = store
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._held_bytes = 0
        """The memory that the pods of all agents take."""
        self._namespaces = Namespaces(store, clock)
        self._fetch_slots = asyncio.Semaphore(PARALLEL_FETCHES)
        self._looked_at_s = float("-inf")
        self._behind = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    # Public

    async def run(self) -> None:
        """Follows the registry until cancelled."""
        self._namespaces.begin()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._follow(), name="fleet registry")
            tasks.create_task(self._refresh(), name="fleet pods")
            try:
                while True:
                    await asyncio.sleep(0)  # changes are followed before they are compared, so that none is missed
                    self._behind.clear()
                    await self._reconcile()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(RECONCILE_S):
                            await self._behind.wait()
            finally:
                self._tasks = None

    def view(self, agent: str) -> AgentView | None:
        """Returns what is known of an agent now; None when there is no such agent."""
        known = self._known.get(agent)
        return known.view if known else None

    def joined(self, agent: str) -> datetime:
        """Returns when an agent joined, or was first seen when that is not known. The agent must be known.

        Raises:
            KeyError: there is no such agent.
        """
        return self._known[agent].created

    def names(self) -> list[str]:
        """Returns the names of all agents, sorted."""
        return sorted(self._known)

    def boxes_in(self, namespace: str) -> Collection[str]:
        """Returns the agents that have pods in a namespace; of one that is gone, the agent that had the last."""
        return self._namespaces.boxes(namespace)

    def boxes_with(self, namespace: str, name: str) -> Iterator[str]:
        """Yields the agents that have a pod which their kubelets call so, sorted."""
        return (box for box in self.names() if self._store.get("pods", (namespace, shown_name(box, namespace, name))))

    @property
    def held_bytes(self) -> int:
        """Returns the memory that the pods of all agents take."""
        return self._held_bytes

    def note_interest(self) -> None:
        """Notes that somebody looks at pods, which keeps them fresh for `INTEREST_S`."""
        self._looked_at_s = asyncio.get_running_loop().time()
        self._refresh_stale()

    async def freshen(self, namespace: str, pod: str) -> None:
        """Asks the agent of a pod again if what is known is older than `FRESH_S`, and waits for its answer only
        `FRESHEN_WAIT_S`. An agent with long lists may not be asked again yet.
        """
        known = self._known.get(box_of(namespace, pod))
        if known is None or not self._is_older(known, FRESH_S):
            return
        if known.next_fetch_s - asyncio.get_running_loop().time() > FRESHEN_WAIT_S:
            return
        if task := self._start_fetch(known):
            await asyncio.wait({task}, timeout=FRESHEN_WAIT_S)

    def use_of_limits(self) -> Iterator[LimitUse]:
        """Yields how much of the limits of pods is used."""
        limits, known = self.limits, self._known.values()
        yield LimitUse("pods_per_box", limits.pods, most(len(one.pods or ()) for one in known))
        yield LimitUse("pod_namespaces_per_box", limits.namespaces, most(one.namespaces for one in known))
        yield LimitUse("pod_bytes_per_box", limits.box_bytes, most(one.held_bytes for one in known))
        yield LimitUse("pod_bytes", limits.all_bytes, self._held_bytes)

    # Internal

    async def _follow(self) -> None:
        while True:
            try:
                async for change, view in self._agents.subscribe():
                    if change is Change.REMOVED:
                        self._forget(view.name)
                    else:
                        self._update(view)
            except FollowerTooSlow:
                self._behind.set()

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(REFRESH_S)
            if loop.time() - self._looked_at_s < INTEREST_S:
                self._refresh_stale()

    async def _reconcile(self) -> None:
        names = {*self._agents.names(), *self._known}
        for count, name in enumerate(sorted(names), 1):
            view = self._agents.agent(name)
            if view is not None:
                self._update(view)
            else:
                self._forget(name)
            if count % AGENTS_AT_A_TIME == 0:
                await asyncio.sleep(0)

    def _update(self, view: AgentView) -> None:
        known = self._known.get(view.name)
        if known is None:
            known = self._known[view.name] = _Known(view, view.joined or self._clock())
        known.view = view
        shown = (view.connected, view.since, view.version, view.address, view.node)
        if shown == known.shown:
            return
        known.shown = shown
        self._publish(known)
        connection = view.since if view.connected else None
        if connection != known.connection and view.connected:
            self._start_fetch(known)
        known.connection = connection

    def _forget(self, name: str) -> None:
        known = self._known.pop(name, None)
        if known is None:
            return
        if known.fetching:
            known.fetching.cancel()
        self._forgotten(name)
        self._store.remove("nodes", ("", name))
        for event in known.events:
            self._store.remove("events", event)
        self._held_bytes -= known.held_bytes
        known.pods, known.held_bytes, known.namespaces = [], 0, 0
        self._publish_pods(known)

    def _publish(self, known: _Known) -> None:
        """Puts the agent's objects into the store."""
        self._publish_node(known)
        self._publish_pods(known)

    def _publish_node(self, known: _Known) -> None:
        """Puts the agent's Node and its events into the store."""
        view = known.view
        lacks = (sources_missing(known.pods or (), view.name), known.incomplete) if view.connected else ()
        self._store.put("nodes", node_object(view, known.created, [one for one in lacks if one is not None]))
        self._publish_events(known)

    def _publish_events(self, known: _Known) -> None:
        """Puts what the box tells of itself into the store, and takes away what it tells no more."""
        events = event_objects(known.view, known.created)
        told: set[Key] = {(event["metadata"]["namespace"], event["metadata"]["name"]) for event in events}
        for event in events:
            self._store.put("events", event)
        for gone in known.events - told:
            self._store.remove("events", gone)
        known.events = told

    def _publish_pods(self, known: _Known) -> None:
        """Brings the agent's pods in the store up to date; of many, most in a task of its own."""
        work = self._publishing(known)
        if next(work, None) is not None and self._tasks is not None:
            self._tasks.create_task(self._go_on(work), name=f"fleet shows pods of {known.view.name}")

    async def _go_on(self, work: Iterator[int]) -> None:
        for _ in work:
            await asyncio.sleep(0)

    def _publishing(self, known: _Known) -> Iterator[int]:
        """Puts the agent's pods into the store, and takes away those that it no longer has. Yields, after each few, how
        many are done; it ends early when a later attempt has begun.
        """
        known.publishing = mine = known.publishing + 1
        view, pods = known.view, known.pods if known.pods is not None else [stand_in(known.view, known.created)]
        kept = {key_of(pod): pod for pod in pods}
        for count, key in enumerate([*kept, *(known.owned - kept.keys())], 1):
            if (pod := kept.get(key)) is not None:
                self._show(known, pod if view.connected else away(pod, view))
            else:
                self._drop(known, key)
            if count % PODS_AT_A_TIME == 0:
                yield count
                if known.publishing != mine:
                    return

    def _show(self, known: _Known, pod: Json) -> None:
        key = key_of(pod)
        if key not in known.owned:
            known.owned.add(key)
            self._namespaces.entered(key[0], known.view.name)
        self._store.put("pods", pod)

    def _drop(self, known: _Known, key: Key) -> None:
        known.owned.discard(key)
        self._store.remove("pods", key)
        self._namespaces.left(key[0], known.view.name)

    def _is_older(self, known: _Known, age_s: float) -> bool:
        return asyncio.get_running_loop().time() - known.fetched_at_s > age_s

    def _refresh_stale(self) -> None:
        for known in self._known.values():
            if known.view.connected and self._is_older(known, STALE_S if _is_settled(known) else UNSETTLED_S):
                self._start_fetch(known)

    def _start_fetch(self, known: _Known) -> asyncio.Task[None] | None:
        askable = known.view.connected and offers_kubelet(known.view)
        if known.fetching is None and self._tasks is not None and askable:
            known.fetching = self._tasks.create_task(self._fetch(known), name=f"fleet pods of {known.view.name}")
        return known.fetching

    async def _fetch(self, known: _Known) -> None:
        name, loop = known.view.name, asyncio.get_running_loop()
        try:
            await asyncio.sleep(max(0.0, known.next_fetch_s - loop.time()))
            async with self._fetch_slots:
                if known.view.connected:
                    known.fetched_at_s = loop.time()
                    self._take(known, await self._list(known))
            self._publish_node(known)
            await self._go_on(self._publishing(known))
        except ApiError as error:
            log.info("fleet.pods_unknown", agent=name, why=error.message)
        except Exception:
            log.exception("fleet.pods_failed", code=BUG.code, agent=name)  # one box must not end the others' mirror
        finally:
            known.fetching = None

    async def _list(self, known: _Known) -> Listed:
        """Returns the pods that the agent's kubelet lists.

        Raises:
            ApiError: they could not be had.
        """
        name, splitter = known.view.name, ListSplitter(MAX_POD_BYTES)
        listing = PodListing(name, self.limits, {key_of(pod): pod for pod in known.pods or ()})
        try:
            async with asyncio.timeout(PODS_TIMEOUT_S):
                await self._kubelets.read_list(name, "/pods", splitter, listing.add, MAX_LIST_BYTES)
        except TimeoutError:
            text = f"the kubelet of agent {name} did not list its pods in time"
            raise ApiError(504, text, cause=cause(KUBELET_SILENT)) from None
        finally:
            took_s = asyncio.get_running_loop().time() - known.fetched_at_s
            pause_s = max(LEAST_PAUSE_S, SLOW_PAUSES * took_s, splitter.length / self.limits.read_bytes_per_s)
            known.next_fetch_s = known.fetched_at_s + pause_s
        listing.too_large(splitter.too_large)
        return listing.finish(self._held_bytes - known.held_bytes)

    def _take(self, known: _Known, listed: Listed) -> None:
        """Keeps what the agent's kubelet listed, and notes what of it is not shown."""
        self._held_bytes += listed.held_bytes - known.held_bytes
        known.pods, known.held_bytes = listed.pods, listed.held_bytes
        known.namespaces = len({key_of(pod)[0] for pod in listed.pods})
        before, known.incomplete = known.incomplete, listed.incomplete
        if listed.incomplete is None:
            return
        since = before["lastTransitionTime"] if before is not None else timestamp(self._clock())
        known.incomplete = listed.incomplete | {"lastTransitionTime": since}
        now_s = asyncio.get_running_loop().time()
        if now_s - known.told_s >= TELL_EVERY_S:
            known.told_s = now_s
            why = listed.incomplete["message"]
            log.warning("fleet.pods_incomplete", code=PODS_INCOMPLETE.code, agent=known.view.name, why=why)


def _is_settled(known: _Known) -> bool:
    return known.pods is not None and all(is_settled(pod) for pod in known.pods)
