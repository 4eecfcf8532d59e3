"""Shows what boxes tell of themselves as Kubernetes events, for `kubectl get events` and the end of `kubectl describe
node`.
"""

from __future__ import annotations

import re
from datetime import datetime

from cloud_server.agents.agents import AgentView
from cloud_server.agents.facts import Fact
from cloud_server.frontends.fleet.objects import claim, timestamp, uid_of
from cloud_server.frontends.fleet.resources import DEFAULT_NAMESPACE
from tunnel.kubeapi.status import Json

SOURCE = "edge-agent"
_CODE = re.compile(r"LL[0-9]{4}")


def event_objects(agent: AgentView, created: datetime) -> list[Json]:
    """Returns an event for each fact that a box tells: a Warning while the fact is so, and Normal once it is over.

    Args:
        agent: what is known of the box. Its name begins each event's, so that none is another box's.
        created: when it was first seen.
    """
    return [_event(agent.name, fact, created) for fact in agent.facts if _CODE.fullmatch(fact.code)]


def _event(agent: str, fact: Fact, created: datetime) -> Json:
    name = f"{agent}.{fact.code.lower()}.{int(fact.since.timestamp()):x}"
    over = fact.until is not None
    return {
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": DEFAULT_NAMESPACE,
            "uid": uid_of("event", name),
            "creationTimestamp": timestamp(created),
        },
        "involvedObject": {"kind": "Node", "apiVersion": "v1", "name": agent, "uid": uid_of("node", agent)},
        "type": "Normal" if over else "Warning",
        "reason": fact.code,
        "message": claim(f"it is over: {fact.text}" if over else fact.text),
        "source": {"component": SOURCE, "host": agent},
        "firstTimestamp": timestamp(fact.since),
        "lastTimestamp": timestamp(fact.until or fact.since),
        "count": 1,
        "eventTime": None,
        "reportingComponent": SOURCE,
        "reportingInstance": agent,
    }
