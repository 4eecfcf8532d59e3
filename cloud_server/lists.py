"""Formats agents and tokens as `cloud-server agent list` and `token list` print them."""

from __future__ import annotations

from datetime import datetime

from cloud_server.trust.administration import ListedAgent, ListedToken
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
    words = [token.token_id, f"user {token.user}" if token.user else f"to join as {token.agent}"]
    if token.created is not None:
        words.append(f"made {date(token.created)}")
    if token.used is not None:
        words.append(f"used {date(token.used)}")
    elif token.expires is not None:
        words.append(f"{'expired' if now >= token.expires else 'until'} {date(token.expires)}")
    return "\t".join(words)
