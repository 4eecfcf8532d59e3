"""Keeps the certificates of a running server good: renews its own, shows what changed in files, and warns of those that
end soon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from cloud_server import expiries
from cloud_server.agents.agents import AgentView
from cloud_server.config import ServerConfig, authority_folder, state_of
from cloud_server.trust.renewal import due
from cloud_server.trust.signer import Signer
from cloud_server.trust.signing_link import SignerFailed
from cloud_server.trust.state_files import CA_FILE
from tunnel.aio.identity.validity import TELL_EVERY, ExpiryLog, Standing, Watched
from tunnel.core.wire.faults import AGENTS_LOCKED_OUT, RENEWAL_FAILED

LOOK_S = 5.0
"""Seconds between two looks: how soon a file that changed counts, and a certificate that is due is renewed."""
TELL_S = 60.0
"""Seconds between two looks for certificates that end soon, each of which is told once a day, and between two tries of
a renewal that failed.
"""
MAX_NAMES = 10
"""How many agents one line of the log names."""
AT_ONCE = 100
"""How many agents are looked at before other tasks have their turn."""

_log = structlog.get_logger("cloud.certificates")


class Certificates:
    """The watch over all certificates of a server. Call `renew` before they are used, then `follow`."""

    def __init__(
        self,
        config: ServerConfig,
        agents: Callable[[], Iterable[AgentView]],
        on_near: Callable[[Watched], None] = lambda _certificate: None,
        lasting: Callable[[], Sequence[Watched]] = list,
    ) -> None:
        """Looks at nothing yet.

        Args:
            config: says which there are.
            agents: all that there are.
            on_near: is told of each whose end is near, when the log is.
            lasting: credentials of users on record that are watched, too.
        """
        self._on_near = on_near
        self._lasting = lasting
        self.config = config
        """The configuration that says which certificates there are. It may be replaced; the next look is by the new
        one.
        """
        self._agents = agents
        self._log = ExpiryLog()
        self._watched: list[Watched] = []
        self._agents_told: datetime | None = None
        self.late_agents: list[str] = []
        """The names of agents that were connected at the last look and had not renewed their certificate in time."""
        self.users_near_end: list[Watched] = []
        """The certificates of users on record that ended soon at the last look."""

    @property
    def watched(self) -> Sequence[Watched]:
        """Returns all certificates of the server's own, as they were at the last look."""
        return self._watched

    def ends(self) -> Mapping[str, datetime]:
        """Returns when each certificate ends, as of the last look, by the names that the metrics have for them."""
        return {one.name: one.validity.not_after for one in self._watched}

    async def renew(self, signer: Signer) -> bool:
        """Renews the certificates that are due. Returns False when that failed, which the log says then."""
        state, folder = state_of(self.config), authority_folder(self.config)
        files = await asyncio.to_thread(due, state, folder=folder)
        if not files:
            return True
        try:
            await signer.renew(files)
        except SignerFailed as error:
            _log.error("not renewed, trying again", code=RENEWAL_FAILED.code, files=files, reason=str(error))
            return False
        _log.info("renewed", files=[str((folder if file == CA_FILE else state) / file) for file in files])
        self._watched = await asyncio.to_thread(expiries.watched, self.config)
        return True

    async def follow(self, signer: Signer | None, reload: Callable[[], Awaitable[None]]) -> None:
        """Looks at files and certificates again and again, until cancelled.

        Args:
            signer: who renews; None with an authority of the user's own.
            reload: shows what the files hold now.
        """
        loop = asyncio.get_running_loop()
        tell_s = retry_s = loop.time()
        while True:
            now_s = loop.time()
            if signer is not None and now_s >= retry_s and not await self.renew(signer):
                retry_s = now_s + TELL_S
            await reload()
            if now_s >= tell_s:
                tell_s = now_s + TELL_S
                self._watched = await asyncio.to_thread(expiries.watched, self.config)
                now = datetime.now(UTC)
                self.users_near_end = [one for one in self._lasting() if one.standing(now) is not Standing.GOOD]
                for near in self._log.look([*self._watched, *self.users_near_end], now):
                    self._on_near(near)
                await self._look_at_agents(now)
            await asyncio.sleep(LOOK_S)

    # Internal

    async def _look_at_agents(self, now: datetime) -> None:
        """Finds the agents that are connected and did not renew their certificate in time, and warns of them in the
        log: they will be locked out.
        """
        late = []
        for number, agent in enumerate(self._agents()):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            if agent.connected and agent.certificate and agent.certificate.standing(now) is not Standing.GOOD:
                late.append(agent.name)
        self.late_agents = late
        if late and (self._agents_told is None or now - self._agents_told >= TELL_EVERY):
            self._agents_told = now
            reason = "their certificates are near their end and were not renewed; their own logs say why"
            names = late[:MAX_NAMES]
            _log.warning(
                "agents will be locked out", code=AGENTS_LOCKED_OUT.code, count=len(late), agents=names, reason=reason
            )
