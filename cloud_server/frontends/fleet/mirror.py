"""Keeps the object store in step with the registry and the agents' kubelets: nodes at once, pods while somebody looks.

Pods cost a request over the box's link, so they are asked for when an agent connects, and again only while somebody
lists, gets or watches pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from cloud_server.agents.agents import AgentView, Change
from cloud_server.agents.feed import FollowerTooSlow
from cloud_server.frontends.fleet.events import event_objects
from cloud_server.frontends.fleet.interfaces import Agents
from cloud_server.frontends.fleet.kubelet import KubeletReader
from cloud_server.frontends.fleet.objects import namespace_object, node_object
from cloud_server.frontends.fleet.pods import (
    away,
    is_settled,
    offers_kubelet,
    pods_from_kubelet,
    sources_missing,
    stand_in,
)
from cloud_server.frontends.fleet.resources import DEFAULT_NAMESPACE, NAMESPACES
from tunnel.core.wire.faults import BUG, POD_REFUSED
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
PARALLEL_FETCHES = 16
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
    fetching: asyncio.Task[None] | None = None
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
    ) -> None:
        """Follows nothing until `run`. `forgotten` is called with the name of each agent that is gone for good."""
        self._forgotten = forgotten
        self._agents = agents
        self._kubelets = kubelets
        self._store = store
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._owners: dict[Key, str] = {}
        self._fetch_slots = asyncio.Semaphore(PARALLEL_FETCHES)
        self._looked_at_s = float("-inf")
        self._behind = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    # Public

    async def run(self) -> None:
        """Follows the registry until cancelled."""
        started = self._clock()
        for name in NAMESPACES:
            self._store.put("namespaces", namespace_object(name, started))
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

    def owner(self, namespace: str, pod: str) -> str | None:
        """Returns the name of the agent that has a pod; None when no agent has it."""
        return self._owners.get((namespace, pod))

    def note_interest(self) -> None:
        """Notes that somebody looks at pods, which keeps them fresh for `INTEREST_S`."""
        self._looked_at_s = asyncio.get_running_loop().time()
        self._refresh_stale()

    async def freshen(self, namespace: str, pod: str) -> None:
        """Asks the agent of a pod again if what is known is older than `FRESH_S`, and waits for its answer only
        `FRESHEN_WAIT_S`.
        """
        known = self._known.get(self._owners.get((namespace, pod), ""))
        if known is None or not self._is_older(known, FRESH_S):
            return
        if task := self._start_fetch(known):
            await asyncio.wait({task}, timeout=FRESHEN_WAIT_S)

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
        for key in list(known.owned):
            self._drop(known, key)

    def _publish(self, known: _Known) -> None:
        """Puts the agent's objects into the store."""
        view = known.view
        sources = sources_missing(known.pods or (), view.name) if view.connected else None
        self._store.put("nodes", node_object(view, known.created, sources))
        self._publish_events(known)
        self._publish_pods(known)

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
        """Puts the agent's pods into the store, and takes away those that it no longer has."""
        view = known.view
        pods = known.pods if known.pods is not None else [stand_in(view, known.created)]
        kept: set[Key] = set()
        for pod in pods:
            key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
            if not self._may_own(view.name, key):
                why = "another agent's name"
                log.warning("fleet.pod_refused", code=POD_REFUSED.code, agent=view.name, pod="/".join(key), why=why)
                continue
            kept.add(key)
            self._give(known, key)
            if self._store.get("namespaces", ("", key[0])) is None:
                self._store.put("namespaces", namespace_object(key[0], self._clock()))
            self._store.put("pods", pod if view.connected else away(pod, view))
        for key in known.owned - kept:
            self._drop(known, key)

    def _may_own(self, agent: str, key: Key) -> bool:
        """Returns whether an agent may have a pod of this name. An agent's own name is its own; any other pod belongs
        to whoever listed it first.
        """
        namespace, pod = key
        if namespace == DEFAULT_NAMESPACE and (pod == agent or pod in self._known):
            return pod == agent
        return self._owners.get(key, agent) == agent

    def _give(self, known: _Known, key: Key) -> None:
        former = self._known.get(self._owners.get(key, ""))
        if former is not None:
            former.owned.discard(key)
        known.owned.add(key)
        self._owners[key] = known.view.name

    def _drop(self, known: _Known, key: Key) -> None:
        known.owned.discard(key)
        del self._owners[key]
        self._store.remove("pods", key)

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
        name = known.view.name
        try:
            async with self._fetch_slots:
                known.fetched_at_s = asyncio.get_running_loop().time()
                known.pods = pods_from_kubelet(await self._kubelets.pods(name), name)
            self._publish(known)
        except ApiError as error:
            log.info("fleet.pods_unknown", agent=name, why=error.message)
        except Exception:
            log.exception("fleet.pods_failed", code=BUG.code, agent=name)  # one box must not end the others' mirror
        finally:
            known.fetching = None


def _is_settled(known: _Known) -> bool:
    return known.pods is not None and all(is_settled(pod) for pod in known.pods)
