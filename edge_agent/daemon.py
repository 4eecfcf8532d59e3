"""The edge daemon as a process: it starts, follows its file, drains on SIGTERM, and answers on its admin socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog

from edge_agent.agent import Agent
from edge_agent.config import NOTHING, ONLY_AT_START, AgentConfig, kubelet_files, load_agent_config, node_files
from edge_agent.identity.expiries import Ends
from edge_agent.identity.identity import Identity, IdentityUnusable
from edge_agent.identity.renewal import Renewals
from edge_agent.status import Status
from edge_agent.troubles import Troubles
from tunnel.aio.carriers.carrier import DialOptions
from tunnel.aio.carriers.native_log import relay
from tunnel.aio.operate.admin import SOCKET_NAME, AdminServer
from tunnel.aio.operate.audit import AuditLog
from tunnel.aio.operate.desired_state import DesiredState
from tunnel.aio.process import garbage, malloc
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.process.file_watch import FileWatch
from tunnel.aio.process.handed import Handed, take_listen_fds
from tunnel.aio.process.lifecycle import Stop, run_daemon
from tunnel.aio.process.log_sink import EXIT_FLUSH_S, LogSink
from tunnel.aio.process.logs import start_log
from tunnel.aio.process.outcome import EXIT_FAILED, EXIT_OK
from tunnel.aio.process.sd_notify import notify
from tunnel.aio.process.supervised import keep_told
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.process.version import VERSION
from tunnel.aio.sessions.standing import linked, stuck
from tunnel.aio.sockets.listener import Handler
from tunnel.aio.sockets.unit_sockets import UnitSockets
from tunnel.core.wire.faults import IDENTITY_UNUSABLE, Fault

NAME = "name"
"""The topic of the fact that the box was joined anew under another name."""
RENEWAL = "renewal"
"""The topic of the fact that a server's answer was refused, or that this disk is a copy."""

_log = structlog.get_logger("edge.agent")


def run(path: Path, config: AgentConfig, host_faults: list[str]) -> int:
    """Runs the agent until SIGTERM, and returns the exit code. A cloud that is away is no reason to end.

    Args:
        path: the configuration file, which the agent follows.
        config: what the file says.
        host_faults: why its `[host]` was left out; empty when it was not.
    """
    handed = take_listen_fds(os.environ)
    malloc.tune()
    log = start_log(config.log)
    return run_daemon(
        lambda stop: _logged(path, config, host_faults, stop, log, handed), lambda: log.flush(EXIT_FLUSH_S)
    )


async def _logged(
    path: Path, config: AgentConfig, host_faults: list[str], stop: Stop, log: LogSink, handed: list[Handed]
) -> int:
    async with relay(log.write):
        return await _main(path, config, host_faults, stop, log, handed)


async def _main(
    path: Path,
    config: AgentConfig,
    host_faults: list[str],
    stop: Stop,
    log: LogSink | None = None,
    handed: Sequence[Handed] = (),
) -> int:
    assert config.state is not None
    identity = Identity(config.state)
    try:
        name = identity.name()
        identity.settle()
    except IdentityUnusable as error:
        _log.error("cannot start", code=error.fault.code, reason=str(error))
        return EXIT_FAILED
    except OSError as error:
        _log.error("cannot start", code=IDENTITY_UNUSABLE.code, reason=f"{identity.folder}: {error.strerror}")
        return EXIT_FAILED
    audit = AuditLog(config.audit.destination, config.audit.on_failure)

    def page() -> Handler:
        from edge_agent.metrics_page import MetricsPage  # brings 5 MB that an agent without it does without

        return MetricsPage(agent, status, lambda: (_lost_lines(log), audit.lost)).endpoint.handle

    agent = await asyncio.to_thread(Agent, name, identity.tls, config, audit, page, UnitSockets(handed))
    ends = Ends(identity.folder, lambda: kubelet_files(agent.config), lambda: node_files(agent.config))
    troubles = Troubles(agent, audit, ends, host_faults)
    desired = DesiredState(
        path,
        config,
        load=load_agent_config,
        apply=agent.apply,
        only_at_start=ONLY_AT_START,
        fault=troubles.fault,
        on_reloaded=troubles.reloaded,
    )
    troubles.follow(desired)
    renewals = Renewals(identity, lambda: _dialling(agent), lambda: _key_life(agent), partial(_renewal_said, agent))
    agent.book.on_fault = renewals.turned_away
    status = Status(agent, desired, ends, renewals)

    try:
        await _run(_Following(agent, identity, desired, status, ends, troubles, renewals), stop)
    finally:
        await agent.aclose()
        await audit.aclose()
    return EXIT_OK


def _lost_lines(log: LogSink | None) -> int:
    return log.lost if log is not None else 0


@dataclass(frozen=True, slots=True)
class _Following:
    """An agent, and everything that looks after it."""

    agent: Agent
    identity: Identity
    desired: DesiredState[AgentConfig]
    status: Status
    ends: Ends
    troubles: Troubles
    renewals: Renewals


async def _run(parts: _Following, stop: Stop) -> None:
    """Runs the agent from the first `apply` to the end of the drain."""
    agent, identity, desired = parts.agent, parts.identity, parts.desired
    config, links = agent.config, agent.links
    admin = AdminServer(parts.status.routes(), identity.folder / SOCKET_NAME)
    await agent.apply(NOTHING, config)
    agent.parts.want("admin socket", admin.open)
    tasks = TaskOwner("edge agent")
    for title, work in (
        ("link", agent.links.run()),
        ("renewal", parts.renewals.run()),
        ("ends of certificates", parts.ends.run()),
        ("configuration", desired.run()),
        ("certificates", _follow_identity(agent, identity)),
        ("telling", agent.telling.run()),
        ("troubles", parts.troubles.run()),
        ("systemd", keep_told(lambda: linked(links.sessions()), lambda: stuck(links.sessions()), os.environ)),
    ):
        stop.watch(tasks.spawn(title, work))
    garbage.settle()
    servers = config.cloud.servers
    _log.info("started", agent=agent.name, version=VERSION, servers=servers, services=agent.services)
    try:
        with desired.reloading_on_hangup():
            await stop.wait()
        notify("STOPPING=1")
        agent.stop()
        await stop.drain(agent.links.drain(agent.config.drain_s, f"agent {agent.name} is stopping"))
    finally:
        await agent.links.finish()
        await admin.aclose()
        await tasks.aclose()


def _dialling(agent: Agent) -> tuple[list[ServerAddress], DialOptions]:
    return agent.config.cloud.servers, agent.dial_options(agent.config)


def _key_life(agent: Agent) -> timedelta | None:
    life_s = agent.config.cloud.rotate_key_after_s
    return timedelta(seconds=life_s) if life_s is not None else None


def _renewal_said(agent: Agent, fault: Fault | None, text: str) -> None:
    if fault is None:
        agent.facts.clear(RENEWAL)
    else:
        agent.facts.set(RENEWAL, fault, text)


async def _follow_identity(agent: Agent, identity: Identity) -> None:
    """Uses another certificate as soon as there is one, whoever put it there: a renewal, a new join, cert-manager."""
    watch = FileWatch(lambda: [identity.certificate_path, identity.key_path, identity.ca_path])
    try:
        await watch.start()
        while True:
            await watch.changed()
            try:
                name = await asyncio.to_thread(identity.name)
            except IdentityUnusable as error:
                _log.warning("the box's new certificate cannot be used", code=error.fault.code, reason=str(error))
                continue
            if name != agent.name:
                text = f"this box joined anew as {name} and runs as {agent.name}: restart edge-agent"
                _log.warning("the box has another name now", code=IDENTITY_UNUSABLE.code, reason=text)
                agent.facts.set(NAME, IDENTITY_UNUSABLE, text)
                continue
            agent.facts.clear(NAME)
            _log.info("the box's certificate has changed: dialling with it")
            agent.links.reconnect()
    finally:
        watch.close()
