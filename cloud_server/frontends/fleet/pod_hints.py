"""Helps whoever asks for a pod by the name that it has at its box alone."""

from __future__ import annotations

from itertools import islice

from cloud_server.frontends.fleet.mirror import Mirror
from cloud_server.frontends.fleet.pod_names import shown_name
from cloud_server.frontends.fleet.sight import Sight

MAX_NAMED = 3


def pods_called(mirror: Mirror, namespace: str, name: str, sight: Sight) -> str:
    """Returns the end of a message about a pod that is not there, which names those that boxes call so. Boxes that are
    hidden are not named; empty when no other has one.
    """
    boxes = filter(sight.shows, mirror.boxes_with(namespace, name))
    found = [shown_name(box, namespace, name) for box in islice(boxes, MAX_NAMED)]
    return f": names of pods end in their box's, did you mean {' or '.join(found)}?" if found else ""
