"""The edge daemon put together: policy, services, the link to the cloud; drained on SIGTERM."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import structlog

from edge_agent.config import AgentConfig, named_targets
from edge_agent.identity.expiries import tell_of_ends
from edge_agent.identity.identity import Identity, IdentityUnusable
from edge_agent.identity.renewal import keep_fresh
from edge_agent.link import box
from edge_agent.link.clock import ClockWatch
from edge_agent.link.cloud_link import CloudLink
from edge_agent.link.listen import LocalListen
from edge_agent.real_kubelet import dial_kubelet
from tunnel.aio.carriers.carrier import DialOptions
from tunnel.aio.carriers.native_log import relay
from tunnel.aio.exits.acceptor import Request, Service, StreamAcceptor
from tunnel.aio.exits.dialer import dial
from tunnel.aio.exits.policy import Policy
from tunnel.aio.process import garbage, malloc
from tunnel.aio.process.command import VERSION
from tunnel.aio.process.lifecycle import EXIT_FAILED, EXIT_OK, Stop, run_daemon
from tunnel.aio.process.log_sink import EXIT_FLUSH_S, LogSink
from tunnel.aio.process.logs import start_log
from tunnel.aio.process.parts import Parts
from tunnel.aio.process.sd_notify import notify
from tunnel.aio.process.supervised import keep_told
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.standing import linked, stuck
from tunnel.aio.sockets.listener import Listener
from tunnel.core.wire.limits import Limits
from tunnel.core.wire.names import KUBELET, OLD_KUBELET

if TYPE_CHECKING:
    from edge_agent.hostkubelet.server import HostKubelet

_log = structlog.get_logger("edge.agent")


def run(config: AgentConfig) -> int:
    """Run until SIGTERM; returns the exit code. A cloud that is away is no reason to end."""
    malloc.tune()
    log = start_log(config.log)
    if config.host.offered:
        from edge_agent.hostkubelet.spawn import unblock_signals_of_commands  # see its package

        unblock_signals_of_commands()
    return run_daemon(lambda stop: _logged(config, stop, log), lambda: log.flush(EXIT_FLUSH_S))


async def _logged(config: AgentConfig, stop: Stop, log: LogSink) -> int:
    async with relay(log.write):
        return await _main(config, stop)


async def _main(config: AgentConfig, stop: Stop) -> int:
    assert config.state is not None
    identity = Identity(config.state)
    try:
        name = identity.name()
    except IdentityUnusable as error:
        _log.error("cannot start", code=error.fault.code, reason=str(error))
        return EXIT_FAILED
    parts = Parts()
    policy = Policy([allow.rule for allow in config.allow])
    host = _host_kubelet(name, config, parts, policy)
    services = _services(config, host)
    named = named_targets(config)
    acceptor = StreamAcceptor(policy, services, named)
    options = DialOptions(proxy=config.cloud.proxy, on_clock=ClockWatch().look)
    link = CloudLink(
        config.cloud.servers,
        identity.tls,
        options,
        acceptor.accept,
        lambda: box.describe(config.labels, [*services, *named]),
        version=VERSION,
        limits=Limits(),
        on_connected=_Once("READY=1"),
    )
    listeners = _listen(config, link, parts)
    tasks = TaskOwner("edge agent")
    stop.watch(tasks.spawn("link", link.run()))
    stop.watch(tasks.spawn("renewal", keep_fresh(identity, config.cloud.servers, options, link.reconnect)))
    stop.watch(tasks.spawn("ends of certificates", tell_of_ends(config)))
    supervised = keep_told(lambda: linked(link.sessions()), lambda: stuck(link.sessions()), os.environ)
    stop.watch(tasks.spawn("systemd", supervised))
    garbage.settle()
    _log.info("started", agent=name, version=VERSION, servers=config.cloud.servers, services=[*services, *named])
    try:
        await stop.wait()
        notify("STOPPING=1")
        parts.stop()
        for listener in listeners:
            listener.close()
        await stop.drain(link.drain(config.drain_s, f"agent {name} is stopping"))
    finally:
        await link.finish()
        await parts.aclose()
        for listener in listeners:
            await listener.aclose()
        await tasks.aclose()
        await link.aclose()
        if host is not None:
            await host.aclose()
    return EXIT_OK


def _listen(config: AgentConfig, link: CloudLink, parts: Parts) -> list[Listener]:
    """Each `[[listen]]`, open as soon as it can be: the way to the box must not hang on a port."""
    listeners: list[Listener] = []
    for one in config.listen:
        listener = Listener(f"listen {one.listen}", LocalListen(link, one.listen, one.target.target).handle)
        listeners.append(listener)
        parts.want(listener.name, partial(listener.listen_tcp, one.listen))
    return listeners


class _Once:
    """Tells systemd at the first call, and nothing afterwards."""

    def __init__(self, state: str) -> None:
        self._state = state

    def __call__(self) -> None:
        if self._state:
            notify(self._state)
            self._state = ""


def _host_kubelet(name: str, config: AgentConfig, parts: Parts, policy: Policy) -> HostKubelet | None:
    """The built-in kubelet; commands wait for their account, which may come from a directory that is not there yet."""
    if not config.host.offered:
        return None
    from edge_agent.hostkubelet.server import HostKubelet  # costs 3 MB with what it needs

    host = HostKubelet(name, config.host.settings, lambda target, deadline_s: dial(target, policy, deadline_s))
    if config.host.exec:
        parts.want("host.exec", host.find_account)
    return host


def _services(config: AgentConfig, host: HostKubelet | None) -> dict[str, Service]:
    kubelet = config.kubelet

    async def serve_built_in(request: Request) -> None:
        assert host is not None
        await host.serve(request.accept(), str(request.principal), request.trace_id)

    async def serve_real(request: Request) -> None:
        assert kubelet is not None
        await request.join(await dial_kubelet(kubelet, request.deadline_s), str(kubelet.address))

    if kubelet is not None:
        return dict.fromkeys((KUBELET, OLD_KUBELET), serve_real)
    return dict.fromkeys((KUBELET, OLD_KUBELET), serve_built_in) if host is not None else {}
