"""Writes the answer of `edge-agent status` for people: what is wrong first, and what to type about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunnel.aio.process.limit_use import in_words

Json = dict[str, Any]
EXIT_CODES = {"good": 0, "warning": 1, "bad": 2}
"""The exit code of the command, by verdict."""


def lines(status: Json) -> Iterator[str]:
    """Yields the lines for people, given the answer of the admin API."""
    yield f"{status['verdict']}: {status['line']}"
    for fact in status["facts"]:
        until = f" until {_time(fact['until'])}" if fact["until"] else ""
        yield f"  {fact['code']}: {fact['text']} (since {_time(fact['since'])}{until})"
    yield f"agent     {status['agent']}, version {status['version']}, runs since {_time(status['since'])}"
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
    since = f" since {_time(server['since'])}" if server["since"] else ""
    fault = f": {server['fault']}" if server["fault"] else ""
    return f"{server['address']} {server['state']}{since}{fault}"


def _autonomy(autonomy: Json) -> Iterator[str]:
    """Yields how the API of the node stands: what is away first, then what is not kept."""
    state = "reached" if autonomy["reached"] else f"away: {autonomy['reason']}"
    yield f"api       API server {state}, since {_time(autonomy['since'])}"
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
    for name in autonomy["passed"]:
        yield f"          not kept: {name}: there is no room"
    for one in autonomy["missing"]:
        yield f"          missing: {one['name']}: asked for since {_time(one['since'])}, and not kept as a whole"
    waiting = ", ".join(f"{count} {kind}" for kind, count in autonomy["waiting"].items() if count)
    if waiting:
        yield f"          to be told when the API server is back: {waiting}"
    dropped = ", ".join(f"{count} {kind}" for kind, count in autonomy["dropped"].items() if count)
    if dropped:
        yield f"          of no use any more: {dropped}"


def _config(config: Json) -> Iterator[str]:
    yield f"config    {config['path']}, generation {config['generation']}, of {_time(config['loaded'])}"
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


def _time(text: str) -> str:
    return text[:19].replace("T", " ") + " UTC"
