"""Puts together what the admin API shows and changes of a running server: the parts that `operate` asks for."""

from __future__ import annotations

from cloud_server.config import ServerConfig
from cloud_server.operate.api import Served
from cloud_server.operate.status import Sources, Status
from cloud_server.server import CloudServer
from tunnel.aio.operate.desired_state import DesiredState
from tunnel.aio.process.version import VERSION


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
        users=server.users_near_end,
        access=server.administration.users.access,
        late_agents=lambda: server.certificates.late_agents,
        config=desired,
        policy=server.followed_policy,
        policy_missing=lambda: server.followed_policy.is_missing,
        audit=server.audit,
        lost_lines=server.lost_lines,
        store_fault=lambda: server.store.fault,
        unreadable=lambda: len(server.store.unreadable()),
        issuer_away=lambda: server.issuer.away,
        cluster_away=lambda: server.cluster.away,
        cluster_ages_s=server.cluster.ages_s,
        limits=server.use_of_limits,
    )
    return Served(
        status=Status(sources),
        book=server.book,
        agents=server.agents,
        live=server.live,
        events=server.events,
        administration=server.administration,
        reload=desired.reload,
        reload_policy=server.followed_policy.state.reload,
        policy=server.policy,
        config_path=str(desired.path),
        audit=server.audit,
    )
