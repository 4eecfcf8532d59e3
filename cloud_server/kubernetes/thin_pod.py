"""Declares the few fields of a pod that routing needs, for lightkube to decode: all others are skipped, not kept.

A whole pod is some 10 kB of JSON, and a model of it with every field costs ten times the work.
"""

# ruff: noqa: N815 - the names are the API's

from __future__ import annotations

from lightkube.core.resource import NamespacedResourceG
from lightkube.core.schema import DictMixin
from lightkube.resources import core_v1


class ThinMetadata(DictMixin):
    """The fields that routing needs of a pod's metadata."""

    name: str
    namespace: str
    resourceVersion: str
    deletionTimestamp: str | None = None


class ThinSpec(DictMixin):
    """The fields that routing needs of a pod's spec."""

    nodeName: str | None = None
    hostNetwork: bool | None = None


class ThinIp(DictMixin):
    """An address of a pod."""

    ip: str | None = None


class ThinStatus(DictMixin):
    """The fields that routing needs of a pod's status."""

    podIPs: list[ThinIp] | None = None


class ThinPod(NamespacedResourceG, DictMixin):
    """A pod, as `GET /api/v1/pods` has it."""

    metadata: ThinMetadata
    spec: ThinSpec | None = None
    status: ThinStatus | None = None


ThinPod._api_info = core_v1.Pod._api_info
