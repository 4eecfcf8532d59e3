"""Fills in what a Kubernetes API server fills into every pod before anybody reads it: clients look into it without
asking.

A box's kubelet leaves most of it out. It is filled in when a pod is shown, so that nothing of it is kept per box.
"""

from __future__ import annotations

from tunnel.kubeapi.encoding import dicts
from tunnel.kubeapi.status import Json

_SPEC: Json = {
    "dnsPolicy": "ClusterFirst",
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "terminationGracePeriodSeconds": 30,
}
_CONTAINER: Json = {
    "image": "",
    "imagePullPolicy": "IfNotPresent",
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_STATUS: Json = {"conditions": [], "containerStatuses": [], "qosClass": "BestEffort"}
_CONTAINER_STATUS: Json = {
    "image": "",
    "imageID": "",
    "lastState": {},
    "ready": False,
    "restartCount": 0,
    "state": {},
}
_CONDITION: Json = {"lastProbeTime": None, "lastTransitionTime": None}
_LISTS = (
    ("spec", ("containers", "initContainers", "ephemeralContainers"), _CONTAINER),
    ("status", ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"), _CONTAINER_STATUS),
    ("status", ("conditions",), _CONDITION),
)


def completed(pod: Json, address: str) -> Json:
    """Returns a pod with all that clients take for granted.

    Args:
        pod: as its kubelet lists it.
        address: of its node; empty when that has none.
    """
    status = {**_STATUS, **_addresses(pod, address)}
    parts = {"spec": _filled(_SPEC, pod["spec"]), "status": _filled(status, pod["status"])}
    for part, fields, defaults in _LISTS:
        for field in fields:
            if field in parts[part]:
                parts[part][field] = [_filled(defaults, item) for item in dicts(parts[part][field])]
    for item in parts["status"]["containerStatuses"]:
        item.setdefault("started", isinstance(item["state"], dict) and "running" in item["state"])
    return {**pod, **parts}


# Internal


def _filled(defaults: Json, item: Json) -> Json:
    return {**defaults, **{name: value for name, value in item.items() if value is not None}}


def _addresses(pod: Json, address: str) -> Json:
    """Returns the addresses of the node, and of the pod when it shares the node's network."""
    if not address:
        return {}
    found: Json = {"hostIP": address, "hostIPs": [{"ip": address}]}
    if pod["spec"].get("hostNetwork") is True:
        own = pod["status"].get("podIP") or address
        found |= {"podIP": own, "podIPs": [{"ip": own}]}
    return found
