"""Serves what agents may reach through this server: `[[expose]]`, which denies by default, and is checked on the
resolved address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple

from cloud_server.opens.door import Door
from cloud_server.opens.expose_rule import ExposeRule
from cloud_server.opens.live import LiveOpen
from cloud_server.opens.request import OpenRequest, new_trace_id
from cloud_server.routing.route import Route
from cloud_server.trust.caller import Caller
from tunnel.aio.exits.acceptor import StreamAcceptor
from tunnel.aio.exits.policy import Policy
from tunnel.aio.sessions.incoming import Acceptor, IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.address import split_address
from tunnel.core import events as ev
from tunnel.core.wire.faults import NOT_EXPOSED
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget
from tunnel.core.wire.target_rule import normal_address

FRONTEND = "expose"


class _Allowed(NamedTuple):
    """What one agent may reach, by address and by name."""

    policy: Policy
    named: Mapping[str, TcpTarget]


class Exposed:
    """The front end of agents: it makes the acceptor of each agent's session."""

    def __init__(self, door: Door, rules: Sequence[ExposeRule], caller: Callable[[str], Caller]) -> None:
        """Holds to `rules`. `caller` returns who an agent of a given name is."""
        self._door = door
        self._rules = rules
        self._caller = caller

    def replace(self, rules: Sequence[ExposeRule]) -> Callable[[LiveOpen], bool]:
        """Holds to these rules from now on. Returns a function that says of an open whether it is an agent's and the
        rules do not allow it any more.
        """
        before, self._rules = self._rules, rules
        then: dict[str, _Allowed] = {}
        now: dict[str, _Allowed] = {}

        def is_gone(live: LiveOpen) -> bool:
            if live.request.frontend != FRONTEND:
                return False
            agent = live.agent
            allowed_then = then.get(agent) or then.setdefault(agent, self._allowed(agent, before))
            allowed_now = now.get(agent) or now.setdefault(agent, self._allowed(agent, rules))
            return not _still_allows(live, allowed_then, allowed_now)

        return is_gone

    def acceptor(self, agent: str) -> Acceptor:
        """Returns the acceptor for streams that this agent opens. Whoever it says they are for, they count as the
        agent's.
        """
        return partial(self._accept, agent)

    def turned_down(self, agent: str, event: ev.OpenTurnedDown) -> None:
        """Records a stream of an agent that the session refused by itself: they were too many, or came too fast."""
        self._door.turned_down(self._caller(agent), FRONTEND, agent, event.target, event.refusal)

    # Internal

    async def _accept(self, agent: str, incoming: IncomingStream) -> None:
        asking = OpenRequest(
            caller=self._caller(agent),
            frontend=FRONTEND,
            peer=agent,
            asked=str(incoming.target),
            route=Route(agent, incoming.target),
            deadline_s=incoming.deadline_s,
            trace_id=incoming.trace_id or new_trace_id(),
        )

        async def serve(opened: Callable[[Stream], None]) -> None:
            # What answers is made for each stream: thousands of agents open none.
            await self._answering(agent).serve(incoming, opened)

        await self._door.take_in(asking, serve)

    def _allowed(self, agent: str, rules: Sequence[ExposeRule]) -> _Allowed:
        mine = [rule for rule in rules if not rule.agents or agent in rule.agents]
        policy = Policy(
            [rule.target for rule in mine],
            list_name=f"this server's [[expose]] rules for {agent}",
            place="at the server",
            fault=NOT_EXPOSED,
        )
        named = {rule.name: target for rule in mine if rule.name is not None and (target := rule.target.single)}
        return _Allowed(policy, named)

    def _answering(self, agent: str) -> StreamAcceptor:
        policy, named = self._allowed(agent, self._rules)
        offered_by = f"this server exposes no {{}} to {agent}: its cloud-server.toml does not"
        who = self._caller(agent).principal
        return StreamAcceptor(policy, {}, named, principal=who, offered_by=offered_by)


def _still_allows(live: LiveOpen, then: _Allowed, now: _Allowed) -> bool:
    """Returns whether a stream may go on. When a stream is being dialled by a name, it is not known yet where it leads:
    the very name must stand in a rule.
    """
    target = _dialled(live.target, then)
    if target is None or _dialled(live.target, now) != target:
        return False
    resolved = live.stream.resolved_address if live.stream is not None else ""
    try:
        address = normal_address(ip_address(split_address(resolved)[0] if resolved else target.host))
    except ValueError:
        return any(rule.matches_name(target.host, target.port) for rule in now.policy.rules)
    return now.policy.still_allows(target, address, then.policy.rule_for(target, address))


def _dialled(asked: Target | None, allowed: _Allowed) -> TcpTarget | None:
    if isinstance(asked, ServiceTarget):
        return allowed.named.get(asked.name)
    return asked if isinstance(asked, TcpTarget) else None
