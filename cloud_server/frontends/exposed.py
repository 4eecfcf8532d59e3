"""What agents may reach through this server: `[[expose]]`, default deny, checked on the resolved address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

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
from tunnel.core import events as ev
from tunnel.core.wire.faults import NOT_EXPOSED

FRONTEND = "expose"


class Exposed:
    """Makes the acceptor of each agent's session."""

    def __init__(self, door: Door, rules: Sequence[ExposeRule], caller: Callable[[str], Caller]) -> None:
        """`caller` says who an agent of this name is."""
        self._door = door
        self.rules = rules
        """May be replaced as a whole; they hold for streams that come from then on."""
        self._caller = caller

    def acceptor(self, agent: str) -> Acceptor:
        """For streams that this agent opens; whoever it says they are for, they are the agent's."""
        return partial(self._accept, agent)

    def turned_down(self, agent: str, event: ev.OpenTurnedDown) -> None:
        """Records a stream of an agent's that the session refused by itself: too many, or too fast."""
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

        async def serve(live: LiveOpen, opened: Callable[[Stream], None]) -> None:
            live.agent, live.target = agent, incoming.target
            # What answers is made for each stream: thousands of agents open none.
            await self._answering(agent).serve(incoming, opened)

        await self._door.take_in(asking, serve)

    def _answering(self, agent: str) -> StreamAcceptor:
        mine = [rule for rule in self.rules if not rule.agents or agent in rule.agents]
        policy = Policy(
            [rule.target for rule in mine],
            list_name=f"this server's [[expose]] rules for {agent}",
            place="at the server",
            fault=NOT_EXPOSED,
        )
        named = {rule.name: target for rule in mine if rule.name is not None and (target := rule.target.single)}
        offered_by = f"this server exposes no {{}} to {agent}: its cloud-server.toml does not"
        who = self._caller(agent).principal
        return StreamAcceptor(policy, {}, named, principal=who, offered_by=offered_by)
