"""Writes how the API of the node stands for people, in full: what the admin API has of it, as `autonomy`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge_agent.operate.status_text import time_text
from tunnel.core.wire.spoken import spoken_s

Json = dict[str, Any]


def is_whole(autonomy: Json) -> bool:
    """Returns whether all that the node's components ask for would be answered without the cloud."""
    scopes = autonomy["scopes"]
    return (
        bool(scopes)
        and all(map(is_scope_kept, scopes))
        and not any(autonomy[lack] for lack in ("passed", "missing", "trouble"))
    )


def lines(autonomy: Json) -> Iterator[str]:
    """Yields the lines: the API server, then each part of the API, then what was written."""
    if autonomy["reached"]:
        yield f"API server  reached since {time_text(autonomy['since'])}"
    else:
        yield f"API server  away since {time_text(autonomy['since'])}: {autonomy['reason']}"
    seen = autonomy["lease_seen"]
    yield f"kubelet     {f'spoke of its lease at {time_text(seen)}' if seen else 'not heard of since the agent began'}"
    written = f"{autonomy['commits']} transactions since the agent began"
    yield f"disk        {autonomy['trouble'] or written}"
    counts = ", ".join(f"{count} {kind}" for kind, count in autonomy["waiting"].items())
    yield f"writes      {counts} wait to be told"
    for kind, why in autonomy["dropped_why"].items():
        for reason, count in why.items():
            yield f"            of no use any more: {count} {kind}: {reason}"
    yield f"tokens      {autonomy['tokens']} for pods"
    yield f"objects     {autonomy['singles']} that are asked for one by one; {autonomy['bytes'] / 1e6:.1f} MB in all"
    for scope in sorted(autonomy["scopes"], key=lambda scope: (is_scope_kept(scope), scope["who"], scope["name"])):
        yield _scope(scope)
    if not autonomy["scopes"]:
        yield "NOT KEPT    anything: nobody has asked for it. Is the kubelet led through the agent (autonomy enable)?"
    for one in autonomy["missing"]:
        since = time_text(one["since"])
        yield f"NOT KEPT    {one['name']} of {one['who']}: asked for since {since}, when it could not be had any more"
    for name in autonomy["passed"]:
        yield f"NOT KEPT    {name}: there is no room (max_parts, max_bytes)"


def is_scope_kept(scope: Json) -> bool:
    """Returns whether a part of the API is on the disk as a whole."""
    return bool(scope["complete"] and scope["kept"])


# Internal


def _scope(scope: Json) -> str:
    current = "current" if scope["live"] else f"not current for {spoken_s(scope['stale_s'])}"
    what = f"{scope['name']} of {scope['who']}: {scope['objects']} objects, {scope['bytes'] / 1000:.0f} kB, {current}"
    watchers = f", {scope['watchers']} watch it" if scope["watchers"] else ""
    if is_scope_kept(scope):
        return f"kept        {what}{watchers}"
    lack = "in memory only" if scope["complete"] else "not there as a whole"
    return f"NOT KEPT    {what}{watchers}; {lack}: {scope['trouble'] or 'it is being asked for'}"
