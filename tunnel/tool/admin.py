"""Asks the administration API of a server, and writes its documents as lines for people.

docs/admin-api.md and cloud_server/operate/openapi.json describe it. A field that is not there is shown as -.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from tunnel.aio.process.limit_use import in_words
from tunnel.core.wire.faults import FAULTS
from tunnel.core.wire.spoken import printable
from tunnel.tool.answers import AGENTS
from tunnel.tool.api import Api, ApiFailed, check_shape
from tunnel.tool.boxes import did_you_mean
from tunnel.tool.copy_progress import size_text
from tunnel.tool.shapes import Shape
from tunnel.tool.tables import age, table

PREFIX = "/longline/v1/"
VERDICTS = {"good": 0, "warning": 1, "bad": 2}
"""The exit code of the command, by verdict."""

Document = Mapping[str, Any]


def documents(api: Api, path: str, shape: Shape) -> Iterator[Document]:
    """Yields the documents that follow one another at a path, a line each of this shape, until the server ends.

    Raises:
        ApiFailed: the path was refused, the connection broke, a line is no document or has another shape, or the server
            says why it ends.
    """
    with api.request("GET", PREFIX + path, headers={"Accept": "application/x-ndjson"}) as answer:
        for line in answer.lines():
            if not line.strip():  # the server's sign of life
                continue
            try:
                document = orjson.loads(line)
            except ValueError as error:
                raise ApiFailed(f"{api.name}: a line of the answer is no JSON") from error
            if isinstance(document, dict) and isinstance(last_word := document.get("error"), dict):
                raise ApiFailed(f"{api.name}: {last_word.get('text')}", fault=FAULTS.get(str(last_word.get("code"))))
            yield check_shape(document, shape, f"{api.name}: a line of the answer")


def status_text(status: Document) -> str:
    """Returns a status for people: the verdict, what to do about it, and the rest in short."""
    agents = status.get("agents") or {}
    lines = [f"{status.get('verdict', '?')}: {printable(str(status.get('line', '')))}"]
    for warning in status.get("warnings") or ():
        lines.append(f"  {warning.get('code')}  {printable(_one_line(warning.get('text')))}")
        lines.append(f"          {printable(str(warning.get('remedy')))}")
    lines.append("")
    connected, joined = agents.get("connected"), agents.get("joined")
    lines.append(
        f"server   {status.get('server_id')}, version {status.get('version')}, up for {age(status.get('since'))}"
    )
    lines.append(f"agents   {connected} of {joined} connected, {agents.get('away')} away")
    lines.append(f"opens    {status.get('opens')}")
    users = status.get("users") or {}
    if users.get("next_end"):
        ends = f"; the next to end is {users.get('next')}'s, {users['next_end']}"
    else:
        ends = ""
    lines.append(f"users    {users.get('with_access')} of {users.get('known')} may log in{printable(ends)}")
    policy = status.get("policy") or {}
    bound = f", {policy.get('roles')} roles, {policy.get('bindings')} bindings"
    lines += [*_file_lines("policy", policy, bound), *_file_lines("config", status.get("config") or {})]
    for part in status.get("parts") or ():
        if not part.get("up"):
            lines.append(f"down     {printable(str(part.get('name')))}: {printable(str(part.get('fault')))}")
    lines += [f"limit    {printable(line)}" for line in in_words(status.get("limits") or ())]
    for one in status.get("certificates") or ():
        lines.append(f"cert     {one.get('name')}: {_days(one.get('days_left'))} left, until {one.get('not_after')}")
    return "\n".join(map(printable, lines))


def _file_lines(what: str, state: Document, more: str = "") -> Iterator[str]:
    """Yields how a file stands that the server follows, and what is `more` to say of it."""
    loaded = age(state.get("loaded"))
    yield f"{what:8} {state.get('path')}, generation {state.get('generation')}, loaded {loaded} ago{more}"
    if state.get("fault"):
        yield f"         not taken as it is now: {printable(_one_line(state['fault']))}"
    for name, words in (("changed", "changed"), ("needs_restart", "needs a restart")):
        yield from (f"         {words}: {printable(str(one))}" for one in state.get(name) or ())


def _one_line(text: object) -> str:
    """Returns text as one line: several faults of a configuration are several lines."""
    return "; ".join(str(text).splitlines())


def agents_text(agents: Sequence[Document]) -> str:
    """Returns a table with a line for each agent."""
    head = ("NAME", "STATE", "SINCE", "ADDRESS", "VERSION", "RTT", "CERT", "STREAMS", "LAST DOWN")
    rows = [
        (
            one.get("name"),
            one.get("state"),
            age(one.get("since")),
            one.get("address"),
            one.get("version"),
            _milliseconds(one.get("rtt_s")),
            _days(one.get("certificate_days_left")),
            one.get("streams"),
            "; ".join(filter(None, [one.get("reason"), *(fact.get("text") for fact in one.get("facts") or ())])),
        )
        for one in agents
    ]
    return table(head, rows)


def agent_text(agent: Document) -> str:
    """Returns everything about one agent, a line for each field."""
    labels = ",".join(f"{name}={value}" for name, value in (agent.get("labels") or {}).items())
    rows: list[tuple[str, object]] = [
        ("name", agent.get("name")),
        ("state", f"{agent.get('state')} for {age(agent.get('since')) or '-'}"),
        ("last seen", _ago(agent.get("last_seen"))),
        ("down last", agent.get("reason")),
        ("address", agent.get("address")),
        ("version", agent.get("version")),
        ("round trip", _milliseconds(agent.get("rtt_s"))),
        ("certificate", _days(agent.get("certificate_days_left"))),
        ("joined", _ago(agent.get("joined"))),
        ("labels", labels),
        ("yours", ",".join(f"{name}={value}" for name, value in (agent.get("operator_labels") or {}).items())),
        ("streams", agent.get("streams")),
    ]
    rows += [
        ("the box says", f"{fact.get('code')} {fact.get('text')} ({_ago(fact.get('since'))})")
        for fact in agent.get("facts") or ()
    ]
    return "\n".join(f"{name:13} {'-' if value in (None, '') else printable(str(value))}" for name, value in rows)


def users_text(users: Sequence[Document]) -> str:
    """Returns a line for each user: their roles, with what they log in, and when that ends."""
    rows = []
    for one in users:
        credentials = one.get("credentials") or ()
        kinds = Counter(str(each.get("kind")) for each in credentials)
        rows.append(
            (
                one.get("name"),
                ", ".join(one.get("groups") or ()),
                ", ".join(one.get("roles") or ()),
                "revoked" if one.get("revoked") else ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds)),
                one.get("until") or "",
                _last_use(one),
                one.get("reason") or one.get("fault") or "",
            )
        )
    return table(("NAME", "GROUPS", "ROLES", "LOGS IN WITH", "UNTIL", "USED", "REASON"), rows)


def user_text(user: Document) -> str:
    """Returns the lines about one user: who they are, what they may, until when, and each
    credential that is good now.
    """
    head: list[tuple[str, object]] = [
        ("name", user.get("name")),
        ("groups", ", ".join(user.get("groups") or ())),
        ("roles", ", ".join(user.get("roles") or ()) or "none: may do nothing; add a [[binding]] to the policy file"),
        ("added", _by(_ago(user.get("created")), user.get("created_by"))),
        ("may log in", _log_in(user)),
        ("last use", _last_use(user)),
    ]
    if user.get("fault"):
        head.append(("fault", user["fault"]))
    lines = [f"{name:13} {'-' if value in (None, '') else printable(str(value))}" for name, value in head]
    rows = [
        (
            each.get("id"),
            each.get("kind"),
            _ago(each.get("created")),
            each.get("created_by"),
            each.get("expires") or "",
            _ago(each.get("last_used")),
            "; ".join(scope_lines(each.get("scope"))),
        )
        for each in user.get("credentials") or ()
    ]
    if rows:
        lines += ["", table(("ID", "KIND", "MADE", "BY", "UNTIL", "USED", "ONLY FOR"), rows)]
    return "\n".join(lines)


def scope_lines(scope: object) -> list[str]:
    """Returns what a credential is limited to, a line for each limit; empty when it has none."""
    limits = scope if isinstance(scope, dict) else {}
    return [f"{name}: {', '.join(values) or 'none'}" for name, values in limits.items() if values is not None]


OPENS_HEAD = ("ID", "SINCE", "WHO", "FROM", "AGENT", "TARGET", "TO BOX", "FROM BOX", "CLASS", "VIA")


def open_row(one: Document) -> tuple[object, ...]:
    """Returns a connection that runs as a row below OPENS_HEAD."""
    return (
        one.get("id"),
        age(one.get("since")),
        one.get("who"),
        one.get("peer"),
        one.get("agent"),
        one.get("target"),
        size_text(one.get("bytes_to_agent") or 0),
        size_text(one.get("bytes_from_agent") or 0),
        one.get("class"),
        one.get("frontend"),
    )


def open_change_text(line: Document) -> str:
    """Returns a change of a connection as a line of `opens --watch`."""
    one = line.get("open") or {}
    moved = f"{size_text(one.get('bytes_to_agent') or 0)} to, {size_text(one.get('bytes_from_agent') or 0)} from"
    who, what = f"{one.get('who')} from {one.get('peer')}", f"{one.get('agent')} {one.get('target')}"
    return printable(f"{line.get('change') or '?':7} {one.get('id')}  {who} -> {what}  {moved}  {one.get('trace_id')}")


def event_text(event: Document) -> str:
    """Returns an event as a line of `events`."""
    return printable(
        f"{event.get('time')}  {event.get('kind') or '?':9} {event.get('agent') or '-':15} {event.get('text')}"
    )


def whoami_text(me: Document) -> str:
    """Returns for people whom the server takes us for, until when, and what it lets us reach."""
    groups = f", in {', '.join(me.get('groups') or ())}" if me.get("groups") else ""
    lines = [f"{me.get('kind')} {me.get('name')}{groups}", f"proved by {me.get('proof')}"]
    lines.append(f"until {me['until']}" if me.get("until") else "without an end")
    lines += [f"only {limit}" for limit in scope_lines(me.get("scope"))]
    return "\n".join(map(printable, lines))


def unknown_agent(api: Api, name: str, error: ApiFailed) -> ApiFailed:
    """Returns an error that suggests similar names if no agent has this name; any other error stays as it is."""
    if error.status != 404:
        return error
    try:
        names = [str(one.get("name")) for one in api.get(PREFIX + "agents", AGENTS)["agents"]]
    except ApiFailed:
        return error
    return ApiFailed(f"{error}{did_you_mean(name, names)}", 404, error.fault)


# Internal


def _days(days: float | None) -> str:
    if days is None:
        return ""
    return f"{days:.0f}d" if abs(days) >= 2 else f"{days:.1f}d"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.0f} ms"


def _log_in(user: Document) -> str:
    """Returns whether a user may log in, and until when."""
    if user.get("revoked"):
        why = f": {user['reason']}" if user.get("reason") else ""
        return f"no: revoked {_ago(user['revoked'])}{why}"
    if not user.get("credentials"):
        return "no: nothing that was handed out is good now"
    return f"until {user['until']}" if user.get("until") else "without an end"


def _by(moment: str, who: object) -> str:
    return f"{moment} by {who}" if who else moment


def _last_use(user: Document) -> str:
    """Returns when any of a user's credentials that are good now was used last."""
    used = [str(one["last_used"]) for one in user.get("credentials") or () if one.get("last_used")]
    return _ago(max(used, default=None))


def _ago(moment: str | None) -> str:
    return f"{age(moment)} ago" if age(moment) else ""
