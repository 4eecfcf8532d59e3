"""Puts together what the admin API shows and changes of a running server: the parts that `operate` asks for."""

from __future__ import annotations

from cloud_server.config import ServerConfig
from cloud_server.operate.api import Served
from cloud_server.operate.status import Sources, Status
from cloud_server.server import CloudServer
from tunnel.aio.operate.desired_state import DesiredState
from tunnel.aio.process.command import VERSION


def served_by(server: CloudServer, desired: DesiredState[ServerConfig]) -> Served:
    """Returns what the admin API of a server is made of."""
    sources = Sources(
        version=VERSION,
        since=server.since,
        server_id=server.server_id,
        config_path=str(desired.path),
        agents=server.book.tally,
        joined_at=server.joined.joined,
        opens=lambda: sum(live.stream is not None for live in server.live),
        parts=server.parts,
        certificates=lambda: server.certificates.watched,
        users=server.front_ends.users_near_end,
        late_agents=lambda: server.certificates.late_agents,
        config=desired,
        audit=server.audit,
        lost_lines=server.lost_lines,
        store_fault=lambda: server.store.fault,
        unreadable=lambda: len(server.store.unreadable()),
        cluster_away=lambda: server.cluster.away,
        cluster_ages_s=server.cluster.ages_s,
    )
    return Served(
        status=Status(sources),
        book=server.book,
        agents=server.agents,
        live=server.live,
        events=server.events,
        administration=server.administration,
        reload=desired.reload,
        config_path=str(desired.path),
        audit=server.audit,
    )
