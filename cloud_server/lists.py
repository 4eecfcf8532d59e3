"""Writes agents, tokens and users as `cloud-server agent list`, `token list` and `user list` print them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from cloud_server.trust.administration import ListedAgent, ListedToken
from cloud_server.trust.caller import Scope
from cloud_server.trust.records import LOGIN
from cloud_server.trust.user_administration import CERTIFICATE, ListedCredential, ListedUser
from tunnel.aio.identity.validity import Standing, date


def agent_line(agent: ListedAgent, now: datetime) -> str:
    """Returns an agent as one line, with tabs between its fields."""
    words = [agent.name]
    record, sighting = agent.record, agent.sighting
    if agent.unreadable:
        words.append(f"its record cannot be read ({agent.unreadable}); join it anew")
    if record is not None:
        words.append(f"joined {date(record.joined)}")
        if record.revoked is not None:
            words.append(f"revoked {date(record.revoked)}" + (f": {record.reason}" if record.reason else ""))
        elif record.validity is not None:
            over = record.validity.standing(now) is Standing.OVER
            words.append(f"certificate {'expired' if over else 'until'} {date(record.validity.not_after)}")
        if record.recovered is not None:
            times = f"{record.recoveries} time{'s' if record.recoveries > 1 else ''}"
            words.append(f"came back after its certificate's end {times}, last {date(record.recovered)}")
        if record.copied is not None:
            words.append(f"a copy of its disk was turned away {date(record.copied)}")
        if record.ahead is not None:
            words.append(f"asked with a number {record.lead} ahead of the server's records {date(record.ahead)}")
        words += [" ".join(f"{name}={value}" for name, value in sorted(record.labels.items()))] if record.labels else []
    if sighting is None:
        words.append("never came")
    else:
        words.append(f"seen {date(sighting.last_seen)} at {sighting.address}")
        if sighting.replaced is not None:
            when = date(sighting.replaced)
            words.append(f"a second process with its identity was turned away {when} at {sighting.replaced_from}")
    return "\t".join(words)


def token_line(token: ListedToken, now: datetime) -> str:
    """Returns a token as one line, with tabs between its fields."""
    if token.unreadable:
        return f"{token.token_id}\tits record cannot be read ({token.unreadable})"
    if token.user:
        kind = token.purpose if token.purpose in (LOGIN, CERTIFICATE) else "token"
        words = [token.token_id, f"{kind} of {token.user}"]
        words += [f"only for {limits}"] if (limits := scope_text(token.scope)) else []
    else:
        nodes = ", each node of the cluster as itself" if token.kubernetes else ""
        words = [token.token_id, f"to join as {token.agent}{nodes}"]
        words += [f"{len(token.names)} of {token.count} joined"] if token.count > 1 else []
        words += [" ".join(f"{name}={value}" for name, value in sorted(token.labels.items()))] if token.labels else []
    if token.created is not None:
        words.append(f"made {date(token.created)}" + (f" by {token.created_by}" if token.created_by else ""))
    if token.used is not None:
        words.append(f"used {date(token.used)}")
    if token.expires is not None and (token.user or len(token.names) < token.count):
        words.append(f"{'expired' if now >= token.expires else 'until'} {date(token.expires)}")
    return "\t".join(words)


def user_line(user: ListedUser, roles: Sequence[str] | None) -> str:
    """Returns a user as one line, with tabs between its fields.

    Args:
        user: whom the line is about.
        roles: the names of the roles that the policy gives them; None when the policy cannot be used.
    """
    record = user.record
    if record is None:
        return f"{user.name}\tits record cannot be read ({user.unreadable}); cloud-server user add writes it anew"
    words = [user.name, f"in {', '.join(record.groups)}" if record.groups else "in no group"]
    words.append("roles unknown" if roles is None else f"may as {', '.join(roles)}" if roles else "may nothing")
    if record.revoked is not None:
        words.append(f"revoked {date(record.revoked)}" + (f": {record.reason}" if record.reason else ""))
        return "\t".join(words)
    if not user.credentials:
        words.append("cannot log in: nothing that was handed out is good now")
        return "\t".join(words)
    kinds = Counter(one.kind for one in user.credentials)
    words.append(", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in sorted(kinds.items())))
    words.append(f"until {date(user.until)}" if user.until is not None else "without an end")
    last = max((one.last_used for one in user.credentials if one.last_used is not None), default=None)
    words.append(f"used {date(last)}" if last is not None else "never used")
    return "\t".join(words)


def credential_line(one: ListedCredential) -> str:
    """Returns a credential as one line, with tabs between its fields."""
    words = [one.credential_id, one.kind]
    words += [f"only for {limits}"] if (limits := scope_text(one.scope)) else []
    words.append(f"made {date(one.created)}" + (f" by {one.created_by}" if one.created_by else ""))
    words.append(f"until {date(one.expires)}" if one.expires is not None else "without an end")
    words.append(f"used {date(one.last_used)}" if one.last_used is not None else "never used")
    return "\t".join(words)


def scope_text(scope: Scope) -> str:
    """Returns the limits of a credential in words; empty when it has none."""
    limits = {name: getattr(scope, name) for name in ("frontends", "verbs", "agents", "targets")}
    return "; ".join(f"{name} {', '.join(sorted(one)) or 'none'}" for name, one in limits.items() if one is not None)
