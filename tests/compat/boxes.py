"""A cloud server and one box that offers what a test says, as real processes, with a stock kubectl for them."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cluster import Box, Cluster, Tables, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.tunnel import BOX

ME = pwd.getpwuid(os.geteuid()).pw_name


@dataclass(kw_only=True)
class OneBox(KubectlUser):
    """What `one_box()` made."""

    cluster: Cluster
    box: Box
    folder: Path
    kubeconfig: Path

    def pod(self) -> dict[str, Any]:
        """The box's pod as it is now."""
        shown: dict[str, Any] = json.loads(self.kubectl("get", "pod", BOX, "-o", "json"))
        return shown

    def state(self, container: str) -> dict[str, Any]:
        """The state of one of its containers."""
        statuses = self.pod()["status"].get("containerStatuses", ())
        return next((status["state"] for status in statuses if status["name"] == container), {})


@contextlib.contextmanager
def one_box(host: Tables, *, environment: Mapping[str, str] | None = None, start: bool = True) -> Iterator[OneBox]:
    """A box that is up; everything is gone at the end.

    Args:
        host: its `[host]` table.
        environment: what its agent gets beside the usual.
        start: whether its agent is started.
    """
    with cluster() as made:
        made.start()
        folder = made.folder / "scratch"
        folder.mkdir()
        box = made.join(BOX, host=host)
        box.agent.environment.update(environment or {})
        if start:
            made.start_box(BOX)
        yield OneBox(cluster=made, box=box, folder=folder, kubeconfig=made.kubeconfig())
