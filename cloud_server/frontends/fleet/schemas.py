"""Describes what the objects of the fleet API are made of, for `kubectl explain`: only fields that are ever filled in
here.

A field's type is `string`, `integer`, `boolean`, `time`, `map` (of strings), `any`, the name of a schema, or one of
these in brackets for a list.
"""

from __future__ import annotations

Fields = dict[str, tuple[str, str]]
"""The fields of an object by name: the type of each, and what it says."""

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
CORE = "io.k8s.api.core.v1."
_OBJECT: Fields = {
    "apiVersion": ("string", "Group and version of this kind of object."),
    "kind": ("string", "The kind of this object."),
    "metadata": (META + "ObjectMeta", "Its name, and what is known of it as an object."),
}
_CONDITION: Fields = {
    "type": ("string", "What it is about."),
    "status": ("string", "True, False or Unknown."),
    "reason": ("string", "Why, in one word for programs."),
    "message": ("string", "Why, for people."),
    "lastTransitionTime": ("time", "When the status last changed."),
}


def _kind(spec: str = "", status: str = "") -> Fields:
    parts = {"spec": (spec, "What it is meant to be."), "status": (status, "What it is.")}
    return _OBJECT | {name: part for name, part in parts.items() if part[0]}


SCHEMAS: dict[str, tuple[str, Fields]] = {
    META + "ObjectMeta": (
        "What every object has.",
        {
            "name": ("string", "Unique in its namespace, among objects of its kind."),
            "namespace": ("string", "Where the name is unique; empty for nodes and namespaces."),
            "uid": ("string", "Stable for one agent or pod."),
            "resourceVersion": ("string", "Version of this state, for watches to go on from."),
            "creationTimestamp": ("time", "When the agent joined, or its pod began."),
            "labels": ("map", "What selectors look at. An agent's own are under longline/."),
            "annotations": ("map", "What tools note."),
            "ownerReferences": ("[any]", "The objects that it belongs to."),
        },
    ),
    CORE + "Node": (
        "A box: an agent that has joined this server, connected or not.",
        _kind(CORE + "NodeSpec", CORE + "NodeStatus"),
    ),
    CORE + "NodeSpec": (
        "What is meant for a box.",
        {
            "providerID": ("string", "longline:// and the agent's name."),
            "taints": ("[" + CORE + "Taint]", "unreachable, while its agent is away."),
        },
    ),
    CORE + "Taint": (
        "A mark that keeps work away.",
        {
            "key": ("string", "Its name."),
            "effect": ("string", "What it keeps away."),
            "timeAdded": ("time", "Since when."),
        },
    ),
    CORE + "NodeStatus": (
        "What a box is and how it does.",
        {
            "addresses": ("[" + CORE + "NodeAddress]", "Its own addresses, and the one that its agent dials from."),
            "allocatable": ("map", "The same as capacity: nothing is set aside."),
            "capacity": ("map", "cpu, memory, pods, and ephemeral-storage once that was measured."),
            "conditions": ("[" + CORE + "NodeCondition]", "Ready: its agent is connected. Pressure: it runs short."),
            "daemonEndpoints": ("any", "Ports of its kubelet: none can be dialled."),
            "images": ("[any]", "Always empty."),
            "nodeInfo": (CORE + "NodeSystemInfo", "What its system says of itself."),
        },
    ),
    CORE + "NodeAddress": (
        "One address of a box.",
        {"type": ("string", "InternalIP, ExternalIP or Hostname."), "address": ("string", "The address.")},
    ),
    CORE + "NodeCondition": (
        "One thing about a box.",
        _CONDITION | {"lastHeartbeatTime": ("time", "When that was last known to be so.")},
    ),
    CORE + "NodeSystemInfo": (
        "What a box says of its system.",
        {
            "architecture": ("string", "As Go calls it: amd64, arm64."),
            "bootID": ("string", "Always empty."),
            "containerRuntimeVersion": ("string", "longline:// and the agent's version."),
            "kernelVersion": ("string", "Of its kernel."),
            "kubeProxyVersion": ("string", "Always empty."),
            "kubeletVersion": ("string", "The agent's version."),
            "machineID": ("string", "Of /etc/machine-id."),
            "operatingSystem": ("string", "linux."),
            "osImage": ("string", "Name of its distribution."),
            "systemUUID": ("string", "Always empty."),
        },
    ),
    CORE + "Pod": (
        "What a box offers: a pod of its name with its shell, units and files, or the pods of its kubelet.",
        _kind(CORE + "PodSpec", CORE + "PodStatus"),
    ),
    CORE + "PodSpec": (
        "What the pod consists of.",
        {
            "nodeName": ("string", "The agent."),
            "containers": ("[" + CORE + "Container]", "What kubectl exec -c and logs -c can name."),
            "initContainers": ("[" + CORE + "Container]", "Of a real kubelet's pod: what runs first."),
            "ephemeralContainers": ("[" + CORE + "Container]", "Of a real kubelet's pod: what was added later."),
            "hostNetwork": ("boolean", "Whether it has the box's own network."),
            "restartPolicy": ("string", "Always."),
            "dnsPolicy": ("string", "Filled in as an API server does."),
            "schedulerName": ("string", "Filled in as an API server does."),
            "securityContext": ("any", "Filled in as an API server does."),
            "terminationGracePeriodSeconds": ("integer", "Filled in as an API server does."),
        },
    ),
    CORE + "Container": (
        "One thing that can be named with -c.",
        {
            "name": ("string", "host for the shell, else a unit such as nginx.service or a file such as app.log."),
            "image": ("string", "What it stands for: host, unit:NAME or file:PATH."),
            "imagePullPolicy": ("string", "Filled in as an API server does."),
            "resources": ("any", "Filled in as an API server does."),
            "terminationMessagePath": ("string", "Filled in as an API server does."),
            "terminationMessagePolicy": ("string", "Filled in as an API server does."),
        },
    ),
    CORE + "PodStatus": (
        "How the pod does.",
        {
            "phase": ("string", "Running; Unknown while the agent is away; Pending before it was asked."),
            "reason": ("string", "AgentAway, while it is."),
            "message": ("string", "The same for people."),
            "conditions": ("[" + CORE + "PodCondition]", "Whether it is ready."),
            "containerStatuses": ("[" + CORE + "ContainerStatus]", "How each container does."),
            "hostIP": ("string", "First address of the box."),
            "hostIPs": ("[any]", "The same as a list."),
            "podIP": ("string", "Address of the pod."),
            "podIPs": ("[any]", "The same as a list."),
            "qosClass": ("string", "Filled in as an API server does."),
            "startTime": ("time", "Since when it is offered."),
        },
    ),
    CORE + "PodCondition": ("One thing about a pod.", _CONDITION),
    CORE + "ContainerStatus": (
        "How a container does.",
        {
            "name": ("string", "Of the container."),
            "ready": ("boolean", "Whether it can be used."),
            "started": ("boolean", "Whether it has begun."),
            "restartCount": ("integer", "Of a unit: how often systemd restarted it."),
            "image": ("string", "As in the spec."),
            "imageID": ("string", "Empty on a plain box."),
            "containerID": ("string", "Tells one run from the next."),
            "state": ("any", "running, waiting or terminated, with why and since when."),
            "lastState": ("any", "How it was before."),
        },
    ),
    CORE + "Namespace": ("A namespace that pods of boxes are in.", _kind("any", CORE + "NamespaceStatus")),
    CORE + "NamespaceStatus": ("How the namespace does.", {"phase": ("string", "Always Active.")}),
    "io.k8s.api.coordination.v1.Lease": (
        "When an agent was last heard of.",
        _kind("io.k8s.api.coordination.v1.LeaseSpec"),
    ),
    "io.k8s.api.coordination.v1.LeaseSpec": (
        "What is known of the agent's link.",
        {
            "holderIdentity": ("string", "The agent."),
            "leaseDurationSeconds": ("integer", "A connected agent is heard from at least this often."),
            "renewTime": ("time", "When it was last heard of."),
        },
    ),
    "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics": (
        "What a box uses.",
        _OBJECT
        | {
            "timestamp": ("time", "When it was measured."),
            "window": ("string", "For how long its processors were looked at."),
            "usage": ("map", "cpu, memory and, of its root file system, ephemeral-storage."),
        },
    ),
    "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics": (
        "What a pod uses; of a plain box, the container host is the box itself.",
        _OBJECT
        | {
            "timestamp": ("time", "When it was measured."),
            "window": ("string", "For how long its processors were looked at."),
            "containers": ("[any]", "Name and usage of each container that is measured."),
        },
    ),
}
