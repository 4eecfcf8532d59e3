"""Checks the options of lists that say which state is wanted, against the state that there is. They are refused where
they cannot be met, never ignored.
"""

from __future__ import annotations

from tunnel.kubeapi.list_options import EXACT, Query, check_list_options, too_new
from tunnel.kubeapi.status import expired


def check_list(query: Query, current: int) -> None:
    """Checks what a list asks for against the current version.

    Raises:
        ApiError: 400 or 422, when it makes no sense; 410, when that version is gone; 504, when it has not come yet.
    """
    check_list_options(query)
    check_version(query, current)
    if query.text("resourceVersionMatch") == EXACT and query.number("resourceVersion", 0) != current:
        raise expired(query.number("resourceVersion", 0), current)


def check_version(query: Query, current: int) -> None:
    """Checks that the version that is asked for is not newer than the current one: a version of another server, or of
    one that lost its clock, may be.

    Raises:
        ApiError: 504, as a Kubernetes API server says it; clients list anew then.
    """
    asked = query.number("resourceVersion", 0)
    if asked > current:
        raise too_new(asked, current)
