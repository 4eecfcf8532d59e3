"""Checks the options of lists and watches that say which state is wanted. They are refused where they cannot be met,
never ignored.
"""

from __future__ import annotations

from cloud_server.frontends.fleet.routes import Query
from tunnel.kubeapi.status import ApiError, expired, invalid

EXACT, NOT_OLDER = "Exact", "NotOlderThan"
_GROUP = "meta.k8s.io"
_MATCH = "resourceVersionMatch"


def check_list(query: Query, current: int) -> None:
    """Checks what a list asks for against the current version.

    Raises:
        ApiError: 400 or 422, when it makes no sense; 410, when that version is gone; 504, when it has not come yet.
    """
    query.number("timeoutSeconds", 0)  # a list takes no time, but nonsense is told
    match, asked = query.text(_MATCH), query.text("resourceVersion")
    if query.text("sendInitialEvents"):
        raise _invalid("sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list")
    if match:
        _check_match(match, (EXACT, NOT_OLDER), query)
        if not asked:
            raise _invalid(_MATCH, f"Forbidden: {_MATCH} is forbidden unless resourceVersion is provided")
        if match == EXACT and asked == "0":
            raise _invalid(_MATCH, f'Forbidden: {_MATCH} "exact" is forbidden for resourceVersion "0"')
    check_version(query, current)
    if match == EXACT and query.number("resourceVersion", 0) != current:
        raise expired(query.number("resourceVersion", 0), current)


def check_watch(query: Query) -> None:
    """Checks what a watch asks for.

    Raises:
        ApiError: 422, when it makes no sense.
    """
    match, initial = query.text(_MATCH), query.text("sendInitialEvents")
    if initial and match != NOT_OLDER:
        raise _invalid(_MATCH, f"Forbidden: sendInitialEvents requires setting {_MATCH} to {NOT_OLDER}")
    if match:
        if not initial:
            raise _invalid(_MATCH, f"Forbidden: {_MATCH} is forbidden for watch unless sendInitialEvents is provided")
        _check_match(match, (NOT_OLDER,), query)


def check_version(query: Query, current: int) -> None:
    """Checks that the version that is asked for is not newer than the current one: a version of another server, or of
    one that lost its clock, may be.

    Raises:
        ApiError: 504, as a Kubernetes API server says it; clients list anew then.
    """
    asked = query.number("resourceVersion", 0)
    if asked > current:
        causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
        text = f"Too large resource version: {asked}, current: {current}"
        raise ApiError(504, text, details={"causes": causes, "retryAfterSeconds": 1})


# Internal


def _check_match(match: str, known: tuple[str, ...], query: Query) -> None:
    if query.text("continue"):
        raise _invalid(_MATCH, f"Forbidden: {_MATCH} is forbidden when continue is provided")
    if match not in known:
        shown = ", ".join(f'"{name}"' for name in known)
        raise _invalid(_MATCH, f'Unsupported value: "{match[:64]}": supported values: {shown}')


def _invalid(field: str, message: str) -> ApiError:
    return invalid("ListOptions", _GROUP, field, message)
