"""Writes the answer of `edge-agent status` for people: what is wrong first, and what to type about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tunnel.aio.process.limit_use import in_words
from tunnel.core.wire.spoken import spoken_s

Json = dict[str, Any]
EXIT_CODES = {"good": 0, "warning": 1, "bad": 2}
"""The exit code of the command, by verdict."""


def lines(status: Json) -> Iterator[str]:
    """Yields the lines for people, given the answer of the admin API."""
    yield f"{status['verdict']}: {status['line']}"
    for fact in status["facts"]:
        until = f" until {time_text(fact['until'])}" if fact["until"] else ""
        yield f"  {fact['code']}: {fact['text']} (since {time_text(fact['since'])}{until})"
    yield f"agent     {status['agent']}, version {status['version']}, runs since {time_text(status['since'])}"
    for server in status["servers"]:
        yield f"server    {_server(server)}"
    rtt = f", round trip {status['rtt_s'] * 1000:.0f} ms" if status["rtt_s"] else ""
    streams = sum(status["streams"].values())
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(status["streams"].items()))
    yield f"session   {status['session'] or 'none'}{rtt}, {streams} streams{f' ({kinds})' if kinds else ''}"
    for part in status["parts"]:
        yield f"part      {part['name']}: {'up' if part['up'] else part['fault'] or 'being brought up'}"
    if status.get("autonomy") is not None:
        yield from _autonomy(status["autonomy"])
    for line in in_words(status.get("limits", ())):
        yield f"limit     {line}"
    for certificate in status["certificates"]:
        remedy = f"; {certificate['remedy']}" if certificate["remedy"] else ""
        yield f"expires   {certificate['name']}: in {certificate['days_left']:.1f} days{remedy}"
    yield from _config(status["config"])
    yield from _advice(status)


def _server(server: Json) -> str:
    since = f" since {time_text(server['since'])}" if server["since"] else ""
    fault = f": {server['fault']}" if server["fault"] else ""
    return f"{server['address']} {server['state']}{since}{fault}"


def _autonomy(autonomy: Json) -> Iterator[str]:
    """Yields how the API of the node stands: what is away first, then what is not kept."""
    state = "reached" if autonomy["reached"] else f"away: {autonomy['reason']}"
    yield f"api       API server {state}, since {time_text(autonomy['since'])}"
    outages = autonomy["outages"]
    if outages["untold"] or outages["last_told"]:
        yield f"          it was away {outages['untold'] or outages['last_told']}"
    yield from _node_credentials(autonomy)
    yield from _kept(autonomy)
    yield from _writes(autonomy)
    yield "          each part of it: edge-agent autonomy status"


def _kept(autonomy: Json) -> Iterator[str]:
    """Yields what is kept, and what is not."""
    scopes = autonomy["scopes"]
    whole = [scope for scope in scopes if scope["complete"] and scope["kept"]]
    objects = sum(scope["objects"] for scope in whole) + autonomy["singles"]
    yield (
        f"kept      {objects} objects in {len(whole)} of {len(scopes)} parts, {autonomy['bytes'] / 1e6:.1f} MB,"
        f" and {autonomy['tokens']} tokens"
    )
    if autonomy["trouble"]:
        yield f"          nothing is written: {autonomy['trouble']}"
    for scope in scopes:
        if scope not in whole:
            yield f"          not kept: {scope['name']}: {scope['trouble'] or 'it is being asked for'}"
    stale = [scope for scope in whole if scope["stale_s"]]
    if stale and autonomy["reached"]:  # while it is away, all are as old as that
        for scope in stale:
            yield f"          not current for {spoken_s(scope['stale_s'])}: {scope['name']}"
    elif stale:
        oldest_s = max(scope["stale_s"] for scope in stale)
        yield f"          not current: {len(stale)} parts, for {spoken_s(oldest_s)} at the most"
    for name in autonomy["passed"]:
        yield f"          not kept: {name}: there is no room"
    for one in autonomy["missing"]:
        yield f"          missing: {one['name']}: asked for since {time_text(one['since'])}, and not kept as a whole"


def _writes(autonomy: Json) -> Iterator[str]:
    """Yields what waits to be told, and what was of no use."""
    waiting = ", ".join(
        f"{count} {kind}{_since(autonomy['waiting_since'][kind])}"
        for kind, count in autonomy["waiting"].items()
        if count
    )
    if waiting:
        yield f"          to be told when the API server is back: {waiting}"
    for kind, why in autonomy["dropped_why"].items():
        for reason, count in why.items():
            yield f"          of no use any more: {count} {kind}: {reason}"


def _node_credentials(autonomy: Json) -> Iterator[str]:
    """Yields what is wrong with the node's certificate."""
    if autonomy["node_refused_since"]:
        since = time_text(autonomy["node_refused_since"])
        yield f"          it does not take the node's certificate (401), since {since}"
    if autonomy["grace_left_s"] is not None:
        end = time_text(autonomy["certificate_ends"])
        yield (
            f"          the kubelet's certificate has ended at {end}; without it the kubelet is believed for"
            f" {autonomy['grace_left_s'] / 86400:.1f} days more"
        )


def _since(text: str | None) -> str:
    """Returns how old the oldest is of what waits."""
    if text is None:
        return ""
    return f" (the oldest for {spoken_s(max((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds(), 0.0))})"


def _config(config: Json) -> Iterator[str]:
    yield f"config    {config['path']}, generation {config['generation']}, of {time_text(config['loaded'])}"
    if config["fault"]:
        yield f"          cannot be used now, the one before stays: {config['fault']}"
    for change in config["changed"]:
        yield f"          changed: {change}"
    for change in config["needs_restart"]:
        yield f"          needs a restart: {change}"


def _advice(status: Json) -> Iterator[str]:
    """Yields what to type about what is wrong."""
    codes = [server["code"] for server in status["servers"] if server["state"] == "down" and server["code"]]
    codes += [fact["code"] for fact in status["facts"] if not fact["until"]]
    for code in dict.fromkeys(codes):
        yield f"to mend it: edge-agent explain {code}"
    if status["config"]["fault"]:
        yield f"to see all that is wrong in the file: edge-agent check --config {status['config']['path']}"
    if status["config"]["needs_restart"]:
        yield "to apply what needs a restart: systemctl restart edge-agent"


def time_text(text: str) -> str:
    """Returns a moment of the admin API for people."""
    return text[:19].replace("T", " ") + " UTC"
