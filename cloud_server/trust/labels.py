"""Checks the labels that an operator gives agents. They have the form of Kubernetes' labels."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cloud_server.trust.administration_failed import AdministrationFailed
from tunnel.core.wire.faults import LABEL_INVALID

MAX_LABELS = 32
_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9._]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9._]{0,61}[A-Za-z0-9])?)?")


def check_labels(labels: Mapping[str, str]) -> None:
    """Makes sure that these can be the labels of an agent.

    Raises:
        AdministrationFailed: they cannot.
    """
    if len(labels) > MAX_LABELS:
        raise AdministrationFailed(f"an agent has {MAX_LABELS} labels at most", LABEL_INVALID)
    for name, value in labels.items():
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            text = f"{name[:80]}={value[:80]} is no label: write it as Kubernetes has them, such as site=lyon"
            raise AdministrationFailed(text, LABEL_INVALID)
