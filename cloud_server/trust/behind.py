"""Finds who would be locked out if one of two authorities went away. `authority show` and `drop` go by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloud_server.trust.administration import ListedAgent
from cloud_server.trust.user_administration import CERTIFICATE, ListedUser


@dataclass(frozen=True, slots=True)
class Behind:
    """The names of agents and users that are not ready for an authority to be the only one."""

    other_certificate: list[str]
    """The agents that do not use a certificate which the authority that stays has signed."""
    not_told: list[str]
    """The agents that are not known to trust the authority that stays."""
    unreadable: list[str]
    """The agents whose records cannot be read."""
    joined: int
    """The number of agents that joined; the revoked are left out."""
    users: list[str]
    """The users with a certificate that is good now and that the authority that stays has not signed. A name stands
    once for each certificate."""

    @property
    def locked_out(self) -> list[str]:
        """Returns the agents that could not come any more, each once, sorted."""
        return sorted({*self.other_certificate, *self.not_told, *self.unreadable})


def behind(agents: Iterable[ListedAgent], users: Iterable[ListedUser], stays: str) -> Behind:
    """Returns who is not ready for the authority `stays` to be the only one; see `authority_id`.

    What an agent was given counts from when it has come with it: before then, the answer may have been lost.
    """
    held = [
        user.name for user in users for one in user.credentials if one.kind == CERTIFICATE and one.authority != stays
    ]
    other: list[str] = []
    untold: list[str] = []
    unreadable: list[str] = []
    joined = 0
    for agent in agents:
        record = agent.record
        if record is not None and record.revoked is not None:
            continue
        joined += 1
        if record is None:
            unreadable.append(agent.name)
            continue
        if not record.taken or record.authority != stays:
            other.append(agent.name)
        if not record.taken or stays not in record.trusts:
            untold.append(agent.name)
    return Behind(other, untold, unreadable, joined, held)
