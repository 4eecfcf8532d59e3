"""The few fields of a pod that routing needs, as lightkube decodes them: all others are skipped, not kept.

A whole pod is some 10 kB of JSON, and a model of it with every field costs ten times the work.
"""

# ruff: noqa: N815 - the names are the API's

from __future__ import annotations

from lightkube.core.resource import NamespacedResourceG
from lightkube.core.schema import DictMixin
from lightkube.resources import core_v1


class ThinMetadata(DictMixin):
    """Of the metadata."""

    name: str
    namespace: str
    resourceVersion: str
    deletionTimestamp: str | None = None


class ThinSpec(DictMixin):
    """Of the spec."""

    nodeName: str | None = None
    hostNetwork: bool | None = None


class ThinIp(DictMixin):
    """An address of a pod."""

    ip: str | None = None


class ThinStatus(DictMixin):
    """Of the status."""

    podIPs: list[ThinIp] | None = None


class ThinPod(NamespacedResourceG, DictMixin):
    """A pod, as `GET /api/v1/pods` has it."""

    metadata: ThinMetadata
    spec: ThinSpec | None = None
    status: ThinStatus | None = None


ThinPod._api_info = core_v1.Pod._api_info
