"""Reads what boxes use of their processors, memory and disk; their kubelets are asked when somebody wants to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from cloud_server.agents.agents import AgentView
from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.kubelet import KubeletReader
from cloud_server.frontends.fleet.pods import offers_kubelet
from cloud_server.frontends.fleet.stream_errors import from_stream_error
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import USAGE_UNKNOWN
from tunnel.kubeapi.encoding import decode, dicts
from tunnel.kubeapi.listing import ListSplitter
from tunnel.kubeapi.status import ApiError

FRESH_S = 10.0
"""Seconds for which an answer, or that there was none, is good enough for others who ask."""
BOX_TIMEOUT_S = 3.0
"""Seconds that one box may take; its kubelet takes 0.5 s for a first look at its processors."""
ALL_TIMEOUT_S = 10.0
"""Seconds that all boxes that somebody asks for may take together; what has not come by then is left out."""
PARALLEL = 64
MAX_SUMMARY_BYTES = 4 * 1024 * 1024
"""The longest summary of a kubelet that is read: 500 pods of two containers each take some 2 MiB."""
MAX_POD_BYTES = 64 * 1024
"""The longest part about one pod; that of a container is some 1 KiB."""
MAX_CONTAINERS = 2048
"""How many containers of one box are read; those beyond are left out, and so are pods with none that is measured."""
MAX_NAME_CHARS = 253
"""The longest name of a pod, its namespace, or a container: Kubernetes' own limit."""
KUBELET_WINDOW_S = 10.0
"""Seconds that a kubelet looks at its processors when it does not say how long: cAdvisor's housekeeping interval."""
_SUMMARY = "/stats/summary"
_LARGEST = 1 << 62

# The defaults of --eviction-hard (kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction).
LEAST_MEMORY_BYTES = 100 * 1024 * 1024
LEAST_DISK = 0.10
LEAST_INODES = 0.05
LEAST_PROCESSES = 0.05
"""The least share of process ids that must be left. A kubelet has no default for this one: it is the same share as of
inodes, which run out in the same way.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of processors and memory something uses."""

    nanocores: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """How much is left of something, and of how much; None where a box does not say."""

    available: int | None = None
    capacity: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The use of one box at one moment."""

    at: datetime
    window_s: float
    """How many seconds its processors were looked at."""
    node: Sample
    memory: Space
    disk: Space
    inodes: Space
    processes: Space
    containers: Mapping[tuple[str, str], Mapping[str, Sample]]
    """The use of each container, by namespace and name of the pod, then by container."""
    changed: Mapping[str, datetime] = field(default_factory=dict)
    """Since when each entry of `lacking` is as it is, by the type of the condition."""


@dataclass(slots=True)
class _Box:
    """What is kept of one agent while it is there."""

    usage: Usage | None = None
    error: ApiError | None = None
    """Why the last attempt brought nothing; None when it brought something."""
    asked_s: float = float("-inf")
    """The loop time of the last answer."""
    since: datetime | None = None
    """When the agent's connection began by which the last answer came."""
    asking: asyncio.Task[None] | None = None


class UsageReader:
    """Reads from boxes, a bounded number at a time; whoever asks for the same box waits for the same answer."""

    def __init__(self, kubelets: KubeletReader, clock: Callable[[], datetime]) -> None:
        """Reads through `kubelets`, and dates what it reads by `clock`. `run` must be running."""
        self._kubelets = kubelets
        self._clock = clock
        self._boxes: dict[str, _Box] = {}
        self._slots = asyncio.Semaphore(PARALLEL)
        self._tasks: asyncio.TaskGroup | None = None

    # Public

    async def run(self) -> None:
        """Owns the tasks that read, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None

    def latest(self, agent: AgentView) -> Usage | None:
        """Returns what was read last of a box; None when nothing was since its agent connected, or it is away."""
        box = self._boxes.get(agent.name)
        return box.usage if box is not None and agent.connected and box.since == agent.since else None

    def forget(self, agent: str) -> None:
        """Forgets an agent that is gone for good, and stops asking its box."""
        box = self._boxes.pop(agent, None)
        if box is not None and box.asking is not None:
            box.asking.cancel()

    async def read(self, agent: AgentView, within_s: float = BOX_TIMEOUT_S) -> Usage:
        """Returns what one box uses now; an answer of the last `FRESH_S` is good enough.

        Raises:
            ApiError: it cannot be had within `within_s` seconds; the text names the agent.
        """
        if not agent.connected:
            raise from_stream_error(OpenRefused("", Code.AGENT_AWAY), agent.name)
        if not offers_kubelet(agent):
            raise ApiError(
                404,
                f"agent {agent.name} does not say what its box uses: it offers no kubelet",
                cause=cause(USAGE_UNKNOWN),
            )
        box = self._boxes.setdefault(agent.name, _Box())
        if (asking := self._ask_if_stale(agent, box)) is not None:
            await asyncio.wait({asking}, timeout=within_s)
        usage = self.latest(agent)
        if usage is None:
            raise box.error or ApiError(504, f"agent {agent.name} did not say in time what its box uses")
        return usage

    async def read_all(self, agents: Iterable[AgentView], within_s: float = ALL_TIMEOUT_S) -> dict[str, Usage]:
        """Returns what several boxes use, by name of the agent; those that do not answer in time are left out."""
        askable = [agent for agent in agents if agent.connected and offers_kubelet(agent)]
        boxes = [(agent, self._boxes.setdefault(agent.name, _Box())) for agent in askable]
        asking = [task for agent, box in boxes if (task := self._ask_if_stale(agent, box))]
        if asking:
            await asyncio.wait(asking, timeout=within_s)
        return {agent.name: usage for agent in askable if (usage := self.latest(agent))}

    # Internal

    def _ask_if_stale(self, agent: AgentView, box: _Box) -> asyncio.Task[None] | None:
        """Asks a box, unless its last answer is fresh. Returns the task to wait for; None when there is nothing to wait
        for.
        """
        fresh = box.since == agent.since and asyncio.get_running_loop().time() - box.asked_s < FRESH_S
        if box.asking is None and not fresh and self._tasks is not None:
            box.asking = self._tasks.create_task(self._ask(agent, box), name=f"fleet usage of {agent.name}")
        return box.asking

    async def _ask(self, agent: AgentView, box: _Box) -> None:
        usage, error = None, None
        try:
            async with self._slots, asyncio.timeout(BOX_TIMEOUT_S):
                summary, samples = await self._summary(agent.name)
            usage = _usage(summary, samples, self._clock(), box.usage)
        except TimeoutError:
            error = ApiError(504, f"agent {agent.name} did not say in time what its box uses")
        except ApiError as failure:
            error = failure
        except (AttributeError, KeyError, TypeError, ValueError):  # a box may send anything
            error = ApiError(502, f"the kubelet of agent {agent.name} sent no usable statistics")
        finally:
            box.asking = None
        box.usage, box.error, box.since = usage, error, agent.since
        box.asked_s = asyncio.get_running_loop().time()

    async def _summary(self, agent: str) -> tuple[Any, _Samples]:
        try:
            return await self._read(agent, _SUMMARY)
        except ApiError as error:
            if error.code != 502:
                raise
        # A kubelet that knows nothing of its disk, as in a container, answers 500 to all of it together.
        return await self._read(agent, f"{_SUMMARY}?only_cpu_and_memory=true")

    async def _read(self, agent: str, path: str) -> tuple[Any, _Samples]:
        samples = _Samples()
        splitter = ListSplitter(MAX_POD_BYTES, "pods")
        return await self._kubelets.read_list(agent, path, splitter, samples.add, MAX_SUMMARY_BYTES), samples


def lacking(usage: Usage) -> dict[str, bool]:
    """Returns whether the box has less left than a kubelet begins to evict at, by the type of a Node's condition."""
    memory = usage.memory.available
    return {
        "MemoryPressure": memory is not None and memory < LEAST_MEMORY_BYTES,
        "DiskPressure": _is_short(usage.disk, LEAST_DISK) or _is_short(usage.inodes, LEAST_INODES),
        "PIDPressure": _is_short(usage.processes, LEAST_PROCESSES),
    }


# Internal


class _Samples:
    """What the pods of one summary use, up to MAX_CONTAINERS containers."""

    def __init__(self) -> None:
        self.of_pods: dict[tuple[str, str], dict[str, Sample]] = {}
        self._left = MAX_CONTAINERS

    def add(self, text: bytes) -> None:
        """Takes a pod as the kubelet wrote it; one that cannot be read is left out."""
        try:
            pod: Any = decode(text)
            reference = pod["podRef"]
            key = _name(reference, "namespace"), _name(reference, "name")
            samples = {
                _name(one, "name"): _sample(one)
                for one in dicts(pod.get("containers"))[: self._left]
                if "cpu" in one and "memory" in one  # one that has just started has none yet
            }
        except (AttributeError, KeyError, TypeError, ValueError):  # a box may send anything
            return
        self._left -= len(samples)
        if samples:
            self.of_pods[key] = samples


def _usage(summary: Any, samples: _Samples, now: datetime, before: Usage | None) -> Usage:
    """Returns the use of a box that a kubelet's summary tells of, and the samples of its pods.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is no such summary.
    """
    node = summary["node"]
    window_s = node["cpu"].get("windowSeconds", KUBELET_WINDOW_S)
    if not isinstance(window_s, int | float) or not 0 < window_s < 3600:
        raise ValueError("no such window")
    memory, disk, limits = node["memory"], node.get("fs") or {}, node.get("rlimit") or {}
    processes, most = _optional(limits, "curproc"), _optional(limits, "maxpid")
    free = most - processes if processes is not None and most is not None else None
    usage = Usage(
        at=now,
        window_s=float(window_s),
        node=_sample(node),
        memory=Space(available=_optional(memory, "availableBytes")),
        disk=Space(available=_optional(disk, "availableBytes"), capacity=_optional(disk, "capacityBytes")),
        inodes=Space(available=_optional(disk, "inodesFree"), capacity=_optional(disk, "inodes")),
        processes=Space(available=free, capacity=most),
        containers=samples.of_pods,
    )
    was = lacking(before) if before is not None else {}
    changed = {
        kind: before.changed[kind] if before is not None and was[kind] == is_short else now
        for kind, is_short in lacking(usage).items()
    }
    return replace(usage, changed=changed)


def _is_short(space: Space, least: float) -> bool:
    return space.available is not None and bool(space.capacity) and space.available < least * (space.capacity or 0)


def _sample(part: Any) -> Sample:
    return Sample(_number(part["cpu"], "usageNanoCores"), _number(part["memory"], "workingSetBytes"))


def _name(part: Any, field: str) -> str:
    value = part[field]
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARS or not value.isprintable():
        raise ValueError(f"{field} is not a name")
    return value


def _number(part: Any, name: str) -> int:
    value = part[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
        raise ValueError(f"{name} is not a number of anything")
    return value


def _optional(part: Any, name: str) -> int | None:
    return _number(part, name) if name in part else None
