"""Chooses the form of an answer that a client accepts: plain JSON, a Table, or aggregated discovery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tunnel.kubeapi.status import ApiError

JSON_TYPES = ("application/json", "application/*", "*/*")
_TABLE = {"Table": ("meta.k8s.io", ("v1", "v1beta1"))}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The form of an answer: the first one in the client's list that this API speaks."""

    kind: str = ""
    """The kind that the client wants the answer transformed to: `Table`, `APIGroupDiscoveryList`, or empty for a plain
    object."""
    version: str = ""


def negotiate(accept: str | None, transforms: Mapping[str, tuple[str, tuple[str, ...]]]) -> Accepted:
    """Returns the form of the answer to a request.

    Args:
        accept: the `Accept` header, None when absent.
        transforms: by kind, the group and the versions that this path can transform its answer to.

    Raises:
        ApiError: 406, the client accepts nothing that is spoken here.
    """
    if not accept or not accept.strip():
        return Accepted()
    for media_type, parameters in _clauses(accept):
        if media_type not in JSON_TYPES:
            continue
        kind = parameters.get("as", "")
        if not kind:
            return Accepted()
        group, versions = transforms.get(kind, ("", ()))
        if parameters.get("g") == group and parameters.get("v") in versions:
            return Accepted(kind, parameters["v"])
    raise ApiError(406, "only the media type application/json is spoken here", details={})


def wants_table(accept: str | None) -> bool:
    """Returns whether an answer that has objects is to be a Table.

    Raises:
        ApiError: 406, the client accepts nothing that is spoken here.
    """
    return negotiate(accept, _TABLE).kind == "Table"


def _clauses(accept: str) -> Iterator[tuple[str, dict[str, str]]]:
    for clause in accept.split(","):
        media_type, *rest = (part.strip() for part in clause.split(";"))
        parameters = dict(part.partition("=")[::2] for part in rest)
        if parameters.get("q") not in ("0", "0.0", "0.00", "0.000"):
            yield media_type.lower(), parameters
