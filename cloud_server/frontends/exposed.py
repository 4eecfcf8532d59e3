"""What agents may reach through this server: `[[expose]]`, default deny, checked on the resolved address."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cloud_server.config import ExposeConfig
from tunnel.aio.exits.acceptor import StreamAcceptor
from tunnel.aio.exits.policy import Policy
from tunnel.aio.sessions.incoming import Acceptor, IncomingStream
from tunnel.core.wire.faults import NOT_EXPOSED
from tunnel.core.wire.principal import Principal, PrincipalKind


class Exposed:
    """Makes the acceptor of each agent's session."""

    def __init__(self, expose: Sequence[ExposeConfig]) -> None:
        self._expose = expose

    def acceptor(self, agent: str) -> Acceptor:
        """For streams that this agent opens; whoever it says they are for, they are the agent's."""
        return partial(self._accept, agent)

    # Internal

    async def _accept(self, agent: str, incoming: IncomingStream) -> None:
        # What answers is made for each stream: thousands of agents open none.
        await self._answering(agent).accept(incoming)

    def _answering(self, agent: str) -> StreamAcceptor:
        mine = [one for one in self._expose if not one.agents or agent in one.agents]
        policy = Policy(
            [one.target.rule for one in mine],
            list_name=f"this server's [[expose]] rules for {agent}",
            place="at the server",
            fault=NOT_EXPOSED,
        )
        named = {one.name: target for one in mine if one.name is not None and (target := one.target.rule.single)}
        offered_by = f"this server exposes no {{}} to {agent}: its cloud-server.toml does not"
        who = Principal(kind=PrincipalKind.AGENT, name=agent)
        return StreamAcceptor(policy, {}, named, principal=who, offered_by=offered_by)
