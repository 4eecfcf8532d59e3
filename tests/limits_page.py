"""Writes docs/limits.md from the limits in the code and their docstrings: `make limits`.

A limit's number, what it counts and the reason for it stand in the code only. Here stands what happens at each.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cloud_server.limits_config import LimitsConfig as ServerLimits
from edge_agent.config import LimitsConfig as AgentLimits
from tunnel.core.wire import faults
from tunnel.core.wire.faults import Fault

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "limits.md"
SERVER, AGENT = "cloud_server.limits_config:LimitsConfig", "edge_agent.config:LimitsConfig"


class At(NamedTuple):
    """What happens at a limit."""

    text: str
    fault: Fault | None = None
    """The code that it is told with; None where nobody is told, as nothing is lost."""
    why: str = ""
    """Where in the code the reason stands, as `module:Name.field`; empty where that is the docstring of the limit."""


_CARRIERS = "tunnel.aio.carriers.limits:CarrierLimits."
_LISTENER = "tunnel.aio.sockets.listener:Limits."
_PODS = "cloud_server.frontends.fleet.pod_limits:PodLimits."
_SESSION = "tunnel.core.wire.limits:Limits."
_KUBELET = "edge_agent.hostkubelet.limits:KubeletLimits."
_LATER, _REFUSED = "Its next waits up to 4 s, and is then refused with the time to come back", "The next is refused"
_CUT = "Those whose handshake takes longer than the others' are cut, then the newest; a box dials again"
_LEFT_OUT = "The rest is not shown, and the box's Node says so"
_STREAM = "New streams get less, then are refused; what runs goes on"

SERVER_AT: Mapping[str, At] = {
    "agent_opens_per_s": At(_REFUSED, faults.OPENS_TOO_FAST, "cloud_server.agents.pace:OPENS"),
    "agent_opens_at_once": At(_REFUSED, faults.OPENS_TOO_FAST),
    "user_opens_per_s": At(
        "The next waits up to 2 s, and is then refused", faults.OPENS_TOO_FAST, "cloud_server.opens.pace:OPENS"
    ),
    "user_opens_at_once": At("As above", faults.OPENS_TOO_FAST),
    "links_per_min": At(_LATER, faults.LINKS_TOO_OFTEN, "cloud_server.agents.pace:LINKS"),
    "links_at_once": At("As above", faults.LINKS_TOO_OFTEN),
    "renewals_per_min": At(
        "The box is told when to ask again", faults.RENEWED_TOO_OFTEN, "cloud_server.trust.enrollment:RENEWALS"
    ),
    "renewals_at_once": At("As above", faults.RENEWED_TOO_OFTEN),
    "joins_per_min": At(
        "The box is told when to ask again", faults.RENEWED_TOO_OFTEN, "cloud_server.trust.enrollment:JOINS"
    ),
    "joins_at_once": At("As above", faults.RENEWED_TOO_OFTEN),
    "clients": At("The next is reset", faults.TOO_MANY_CLIENTS, _LISTENER + "connections"),
    "clients_per_address": At("The next is reset", faults.TOO_MANY_CLIENTS, _LISTENER + "per_address"),
    "handshakes_per_address": At("The next is reset", faults.TOO_MANY_CLIENTS, _LISTENER + "handshakes_per_address"),
    "strangers": At(
        "The oldest of the address with the most goes; users lose nothing",
        faults.TOO_MANY_CLIENTS,
        "tunnel.aio.sockets.strangers:StrangerLimits.connections",
    ),
    "strangers_per_address": At(
        "The oldest of that address goes",
        faults.TOO_MANY_CLIENTS,
        "tunnel.aio.sockets.strangers:StrangerLimits.per_address",
    ),
    "stranger_head_bytes": At(
        "A request with a longer head is answered with 503",
        faults.API_REQUEST_INVALID,
        "tunnel.aio.http.long_heads:STRANGERS_BYTES",
    ),
    "user_head_bytes": At(
        "A request with a longer head is answered with 503",
        faults.API_REQUEST_INVALID,
        "tunnel.aio.http.long_heads:USERS_BYTES",
    ),
    "pods_per_box": At(_LEFT_OUT, faults.PODS_INCOMPLETE, _PODS + "pods"),
    "pod_namespaces_per_box": At(_LEFT_OUT, faults.PODS_INCOMPLETE, _PODS + "namespaces"),
    "pod_bytes_per_box": At(_LEFT_OUT, faults.PODS_INCOMPLETE, _PODS + "box_bytes"),
    "pod_bytes": At(
        "Each box has room for 32 KiB; of more, the rest is not shown", faults.PODS_INCOMPLETE, _PODS + "all_bytes"
    ),
    "pod_list_bytes_per_s": At("The box is asked again later", None, _PODS + "read_bytes_per_s"),
    "fleet_history_bytes": At("Watches that are too far behind list again (410)", None, _PODS + "history_bytes"),
    "stream_memory_bytes": At(
        "As below, for all agents; at half of it, sessions whose link is away end, those with the most first",
        faults.NO_MEMORY_FOR_STREAM,
    ),
    "agent_stream_memory_bytes": At(_STREAM, faults.NO_MEMORY_FOR_STREAM, _SESSION + "session_budget_bytes"),
    "agent_streams": At(_REFUSED, faults.TOO_MANY_STREAMS, _SESSION + "max_streams"),
    "orphan_s": At("The stream is reset", faults.NOBODY_READS, _SESSION + "orphan_after_s"),
    "tunnel_connections": At("gRPC closes the next; a box dials again", None, _CARRIERS + "connections"),
    "tunnel_waiting": At(_CUT, faults.TOO_MANY_CLIENTS, _CARRIERS + "waiting"),
    "tunnel_waiting_per_address": At("As above", faults.TOO_MANY_CLIENTS, _CARRIERS + "waiting_per_address"),
    "tunnel_requests": At("The box is told to ask again after 2 s", faults.TOO_MANY_CLIENTS, _CARRIERS + "requests"),
    "tunnel_requests_per_address": At("As above", faults.TOO_MANY_CLIENTS, _CARRIERS + "requests_per_address"),
    "tunnel_requests_per_identity": At("As above", faults.TOO_MANY_CLIENTS, _CARRIERS + "requests_per_identity"),
    "tunnel_requests_per_token": At("As above", faults.TOO_MANY_CLIENTS, _CARRIERS + "requests_per_token"),
    "tunnel_silent": At("The next is refused; a box dials again", faults.PEER_SAID_NOTHING, _CARRIERS + "max_silent"),
    "tunnel_silent_per_address": At("As above", faults.PEER_SAID_NOTHING, _CARRIERS + "max_silent_per_address"),
    "tunnel_silent_per_identity": At(
        "The oldest goes", faults.PEER_SAID_NOTHING, _CARRIERS + "max_silent_per_identity"
    ),
}
AGENT_AT: Mapping[str, At] = {
    "stream_memory_bytes": At(_STREAM, faults.NO_MEMORY_FOR_STREAM),
    "streams": At(_REFUSED, faults.TOO_MANY_STREAMS, _SESSION + "max_streams"),
    "clients": At("The next is reset", faults.TOO_MANY_CLIENTS, _LISTENER + "connections"),
    "commands": At(_REFUSED, faults.TOO_MANY_COMMANDS, _KUBELET + "commands"),
    "logs": At(_REFUSED, faults.TOO_MANY_COMMANDS, _KUBELET + "logs"),
    "port_forwards": At(_REFUSED, faults.TOO_MANY_COMMANDS, _KUBELET + "port_forwards"),
    "head_bytes": At("A request with a longer head is answered with 503", None, _KUBELET + "head_bytes"),
    "orphan_s": At("The stream is reset", faults.NOBODY_READS, _SESSION + "orphan_after_s"),
}
_BROKEN = At("The session ends", faults.PROTOCOL_BROKEN)
_HELLO = At("The link is refused", faults.PROTOCOL_BROKEN)
_KEPT = At("What is longer is cut")
_PASSED = "The rest is asked of the API server alone, and has no answer while it is away"
CONSTANTS: Mapping[str, At] = {
    "tunnel.core.wire.limits:MAX_MESSAGE_BYTES": At("The link breaks, and is dialled again", faults.LINK_BROKE),
    "tunnel.core.wire.limits:MAX_FRAMES": _BROKEN,
    "tunnel.core.wire.limits:MAX_DATA_BYTES": _BROKEN,
    "tunnel.core.wire.limits:MAX_TEXT_BYTES": _BROKEN,
    "tunnel.core.wire.limits:MAX_EARLY_BYTES": _BROKEN,
    "tunnel.core.wire.limits:MAX_GROUPS_BYTES": At("Further groups are not told"),
    "tunnel.core.wire.limits:MAX_TRACE_ID_BYTES": _BROKEN,
    "tunnel.core.wire.limits:MAX_HOP": At("The stream is refused", faults.NOT_FORWARDED),
    "tunnel.core.wire.limits:MAX_CSR_BYTES": At("The request is refused"),
    "tunnel.core.wire.limits:MAX_NODE_BYTES": _HELLO,
    "tunnel.core.wire.limits:MAX_FACTS": _HELLO,
    "tunnel.core.wire.handshake:MAX_HANDSHAKE_BYTES": _HELLO,
    "tunnel.core.wire.handshake:MAX_NODE_ENTRIES": _HELLO,
    "tunnel.core.wire.handshake:MAX_VERSION_CHARS": _KEPT,
    "tunnel.core.path.allowance:FRAMES_PER_S": At("The peer is read more slowly"),
    "tunnel.core.path.allowance:FRAMES_BURST": At("As above"),
    "tunnel.core.path.allowance:FLOOD_S": At("The session ends", faults.LINK_FLOODED),
    "tunnel.core.path.allowance:BARRED_S": At("A link sooner than that is refused", faults.LINK_FLOODED),
    "tunnel.core.egress:MAX_UNACKED_PACKETS": _BROKEN,
    "tunnel.core.egress:UNACKED_S": _BROKEN,
    "tunnel.core.session:MAX_CONTROL_FRAMES": _BROKEN,
    "tunnel.core.streams.send_half:MAX_CREDIT_AHEAD_BYTES": _BROKEN,
    "tunnel.core.wire.limits:Limits.max_window_bytes": At("The sender waits"),
    "tunnel.core.wire.limits:Limits.max_in_flight_bytes": At("The sender waits"),
    "tunnel.core.wire.limits:Timing.dead_after_s": At(
        "The link is given up, the session waits for another", faults.LINK_BROKE
    ),
    "tunnel.core.wire.limits:Timing.resume_window_s": At("Its streams are reset", faults.SESSION_LOST),
    "tunnel.aio.carriers.limits:CarrierLimits.call_timeout_s": At("The connection is cut", faults.PEER_SAID_NOTHING),
    "tunnel.aio.carriers.limits:CarrierLimits.request_timeout_s": At("The request ends", faults.PEER_SAID_NOTHING),
    "tunnel.aio.carriers.limits:CarrierLimits.first_message_timeout_s": At("The link ends", faults.PEER_SAID_NOTHING),
    "tunnel.aio.carriers.enrollment:MAX_REQUEST_BYTES": At("The request is refused"),
    "cloud_server.agents.pace:MAX_HELD": At("Further links are refused at once", faults.LINKS_TOO_OFTEN),
    "tunnel.aio.sockets.strangers:StrangerLimits.within_s": At("The connection ends", faults.TOO_MANY_CLIENTS),
    "cloud_server.frontends.logins:GUESSES": At("The answer waits up to 5 s; a right credential never does"),
    "cloud_server.frontends.logins:MISSING": At("As above"),
    "cloud_server.frontends.connect:MAX_HEAD_BYTES": At("The request is refused", faults.CONNECT_INVALID),
    "tunnel.aio.http.http1:MAX_HEAD_BYTES": At("Answered with 431"),
    "tunnel.aio.http.http1:MAX_LONG_HEAD_BYTES": At("Answered with 431"),
    "tunnel.aio.http.http2_server:MAX_STREAMS": At("A further stream is refused; clients send it again"),
    "tunnel.aio.http.http2_server:MAX_UNREAD_BYTES": At(
        "Further requests are answered with 429", faults.API_REQUEST_INVALID
    ),
    "tunnel.aio.http.serving:IDLE_TIMEOUT_S": At("The connection ends"),
    "cloud_server.frontends.fleet.server:MAX_BODY_BYTES": At("Answered with 413", faults.API_REQUEST_INVALID),
    "cloud_server.frontends.fleet.pod_limits:MAX_LIST_BYTES": At(
        "The box's pods stay as they were", faults.KUBELET_BROKEN
    ),
    "cloud_server.frontends.fleet.pod_limits:MAX_POD_BYTES": At(_LEFT_OUT, faults.PODS_INCOMPLETE),
    "cloud_server.frontends.fleet.pod_fields:MAX_TEXT_CHARS": _KEPT,
    "cloud_server.frontends.fleet.usage:MAX_SUMMARY_BYTES": At("Usage is unknown", faults.USAGE_UNKNOWN),
    "cloud_server.frontends.konnectivity.call:ASSEMBLY_BYTES": At("The call ends"),
    "cloud_server.trust.signing_service:MAX_CONNECTIONS": At("The next is closed"),
    "tunnel.aio.operate.admin:MAX_CONNECTIONS": At("The next is reset", faults.TOO_MANY_CLIENTS),
    "tunnel.aio.operate.admin:UNREAD_S": At("The connection ends"),
    "edge_agent.autonomy.kept.feeds:KeptLimits.scopes": At(_PASSED, faults.SCOPE_NOT_KEPT),
    "edge_agent.autonomy.kept.feeds:KeptLimits.scope_bytes": At(_PASSED, faults.SCOPE_NOT_KEPT),
    "edge_agent.autonomy.kept.feeds:KeptLimits.total_bytes": At(_PASSED, faults.SCOPE_NOT_KEPT),
    "edge_agent.autonomy.writing.events:MAX_EVENTS": At("The oldest events of an outage go", faults.NOT_TOLD),
    "edge_agent.autonomy.writing.events:MAX_EVENT_BYTES": At("Answered with 503"),
    "edge_agent.autonomy.writing.tokens:MAX_TOKENS": At("The token that was got longest ago goes"),
    "edge_agent.autonomy.answering.callers:MAX_CALLERS": At(
        "Whose token was accepted longest ago is not known while it is away"
    ),
    "edge_agent.autonomy.answering.callers:MAX_PROOFS": At(
        "The right that was seen longest ago is not known while it is away"
    ),
    "edge_agent.autonomy.writing.offline_writes:MAX_BODY_BYTES": At("Answered with 413"),
    "edge_agent.hostkubelet.port_forward:MAX_PAIRS": At("A further pair is refused"),
    "edge_agent.hostkubelet.exec_session:INPUT_BYTES": At("The client waits"),
}
HEAD = """\
# Limits

Everything that boxes, users, servers and strangers can make a daemon hold or do has a bound. This page is made from the
code by `make limits`: the numbers, and the reasons for them, are the code's. The settings are in `[limits]` of
`cloud-server.toml` and `edge-agent.toml` ([all settings](configuration.md)); their defaults are for 10,000 boxes
on one server.

How much of each is used now is told by `longline status` and `edge-agent status`, and by the [metrics](metrics.md)
`longline_limit` and `longline_limit_used` (`longline_agent_limit` and `longline_agent_limit_used` of an agent), by the
name of the setting. Of a limit for each box, user, address or listener it is the use of the one that uses most; of one
"at once", what of it is spent. Rates and times have no use that could be shown.
"""


def text() -> str:
    """Returns the page."""
    parts = [HEAD, "## Settings of the server\n", *_settings(ServerLimits, SERVER, SERVER_AT)]
    parts += ["\n## Settings of an agent\n", *_settings(AgentLimits, AGENT, AGENT_AT)]
    parts += [
        "\n## Constants\n",
        "What a peer meets that no setting changes.\n",
        "| constant | value | what and why | at it |",
    ]
    parts += ["|---|---|---|---|", *map(_constant, CONSTANTS, CONSTANTS.values())]
    return "\n".join(parts) + "\n"


def _settings(section: Any, where: str, at: Mapping[str, At]) -> Iterator[str]:
    yield "| `limits.` | default | what | why | at it |"
    yield "|---|---|---|---|---|"
    for field in dataclasses.fields(section):
        one = at[field.name]
        why = docstring(one.why) if one.why else ""
        number, what = _number(field.name, field.default), docstring(f"{where}.{field.name}")
        yield f"| `{field.name}` | {number} | {what} | {why} | {_at(one)} |"


def _constant(name: str, at: At) -> str:
    return f"| `{name.replace(':', '.')}` | {_number(name, value(name))} | {docstring(name)} | {_at(at)} |"


def _at(at: At) -> str:
    return f"{at.text} ([{at.fault.code}](errors/{at.fault.code}.md))" if at.fault is not None else at.text


def value(name: str) -> object:
    """Returns what `module:Name` or `module:Class.field` is."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    owner, _, field = path.rpartition(".")
    return getattr(getattr(found, owner)(), field) if owner else getattr(found, path)


def docstring(name: str) -> str:
    """Returns what stands below `module:Name` or `module:Class.field` in the code, in one line; empty for nothing."""
    module, _, path = name.partition(":")
    return _docstrings(module).get(path, "")


@cache
def _docstrings(module: str) -> Mapping[str, str]:
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    found: dict[str, str] = {}
    bodies = [("", tree.body), *((f"{one.name}.", one.body) for one in tree.body if isinstance(one, ast.ClassDef))]
    for prefix, body in bodies:
        for index, node in enumerate(body):
            target = (
                node.target
                if isinstance(node, ast.AnnAssign)
                else node.targets[0]
                if isinstance(node, ast.Assign)
                else None
            )
            if not isinstance(target, ast.Name):
                continue
            below = body[index + 1] if index + 1 < len(body) else None
            told = below.value if isinstance(below, ast.Expr) else None
            text = told.value if isinstance(told, ast.Constant) and isinstance(told.value, str) else ""
            found[prefix + target.id] = " ".join(text.split()).replace("|", "\\|")
    return found


def _number(name: str, number: object) -> str:
    if isinstance(number, tuple):
        return f"{number[0]:g} a second, {number[1]} at once"
    assert isinstance(number, int | float)
    if "_bytes" in name.lower():
        for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
            if number >= size and not number % size:
                return f"{int(number // size)} {unit}"
    unit = " s" if name.lower().endswith("_s") and "per_s" not in name.lower() else ""
    return f"{number:,g}{unit}" if isinstance(number, float) else f"{number:,}{unit}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
