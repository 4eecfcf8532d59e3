"""The cloud daemon as a process: it starts, follows its configuration file, answers at its admin socket, and drains on
SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import structlog

from cloud_server.administered import served_by
from cloud_server.config import ONLY_AT_START, ServerConfig, load_server_config, state_of
from cloud_server.handover import Inheritance, Upgrades
from cloud_server.operate.api import Api
from cloud_server.server import CloudServer, StartFailed
from cloud_server.trust.state import open_state
from cloud_server.trust.store import StoreUnavailable
from tunnel.aio.carriers.native_log import HandshakeFailed, NativeEvent, Suppressed, capture
from tunnel.aio.identity.tls_material import CredentialsUnusable
from tunnel.aio.identity.validity import clock_says
from tunnel.aio.operate.admin import SOCKET_NAME, AdminServer
from tunnel.aio.operate.audit import AuditLog
from tunnel.aio.operate.desired_state import DesiredState, Reloaded
from tunnel.aio.process import garbage, malloc
from tunnel.aio.process.config import ConfigError
from tunnel.aio.process.lifecycle import Stop, run_daemon
from tunnel.aio.process.log_sink import EXIT_FLUSH_S, LogSink
from tunnel.aio.process.logs import start_log
from tunnel.aio.process.outcome import EXIT_FAILED, EXIT_OK
from tunnel.aio.process.pid_file import AlreadyRunning, PidFile
from tunnel.aio.process.sd_notify import notify
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.process.version import VERSION
from tunnel.core.wire.faults import GRPC_SAYS, PEER_CERTIFICATE_REFUSED, fault_of

_log = structlog.get_logger("cloud.server")


def run(path: Path, config: ServerConfig) -> int:
    """Runs the server until SIGTERM, or until another process has taken over; returns the exit code.

    `config` is what is in the file at `path`, which is followed.
    """
    for early in (signal.SIGHUP, signal.SIGUSR2):  # too early for a reload or an upgrade; the default is to end
        signal.signal(early, signal.SIG_IGN)
    inheritance = Inheritance.take(os.environ)
    malloc.tune()
    log = start_log(config.log)
    audit = AuditLog(config.audit.destination, config.audit.on_failure)

    def last_words() -> None:
        audit.flush(EXIT_FLUSH_S)
        log.flush(EXIT_FLUSH_S)

    return run_daemon(lambda stop: _main(path, config, stop, log, audit, inheritance), last_words)


class Start(NamedTuple):
    """How this process was started, what it holds of the state folder, and how the next process will take over."""

    inheritance: Inheritance
    lock: PidFile | None
    upgrades: Upgrades


async def _main(
    path: Path, config: ServerConfig, stop: Stop, log: LogSink, audit: AuditLog, inheritance: Inheritance
) -> int:
    try:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(audit.aclose)
            audit.record("started", version=VERSION, pid=os.getpid())
            lock = await asyncio.to_thread(inheritance.lock, state_of(config))
            store = await asyncio.to_thread(open_state, state_of(config))
            stack.push_async_callback(store.aclose)
            server = CloudServer(config, store, audit, lambda: log.lost, inheritance.sockets)
            await stack.enter_async_context(capture(lambda event: _on_native(event, server), log.write))
            stack.push_async_callback(server.aclose)
            upgrades = Upgrades(inheritance, lock, state_of(config), stop)
            stack.push_async_callback(upgrades.aclose)
            await _run(path, config, stop, server, Start(inheritance, lock, upgrades))
        return EXIT_OK
    except (StartFailed, StoreUnavailable, AlreadyRunning, CredentialsUnusable, ConfigError, OSError) as error:
        _log.error("cannot start", code=fault_of(error).code, reason=str(error))
        return EXIT_FAILED


async def _run(path: Path, config: ServerConfig, stop: Stop, server: CloudServer, start: Start) -> None:
    """Runs the server from its start to the end of its drain."""

    def reloaded(one: Reloaded) -> None:
        server.audit.record("config", **one.as_json())
        server.events.reloaded(one)

    desired = DesiredState(
        path,
        config,
        load=load_server_config,
        apply=server.apply,
        only_at_start=ONLY_AT_START,
        on_reloaded=reloaded,
    )
    server.counting.desired = desired
    Api(served_by(server, desired), server.admin)
    admin = AdminServer(server.admin, state_of(config) / SOCKET_NAME)
    tasks = TaskOwner("daemon")
    server.parts.want("admin socket", admin.open)
    try:
        await server.start(stop, beside_another=start.inheritance.predecessor is not None)
        await start.inheritance.take_over()
        if start.lock is not None:
            await asyncio.to_thread(start.lock.write)
        upgrades = start.upgrades
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, upgrades.ask)
        stop.watch(tasks.spawn("configuration", desired.run()))
        garbage.settle()
        _log.info("ready", version=VERSION, ports=server.ports)
        with desired.reloading_on_hangup(server.audit.reopen, server.followed_policy.state.reload):
            notify("READY=1")
            server.begin_telling(stop)
            await stop.wait()
            await upgrades.call_off()
        server.audit.record("stopping")
        if upgrades.successor is None:
            notify("STOPPING=1")
            await stop.drain(server.drain())
        else:
            await admin.aclose()  # the one that takes over answers there
            await stop.drain(server.drain(upgrades.let_go))
    finally:
        await tasks.aclose()
        await admin.aclose()


def _on_native(event: NativeEvent, server: CloudServer) -> None:
    """Logs and counts what gRPC's own code says; above all, whose certificate was not accepted."""
    server.counting.saw(event)
    if isinstance(event, HandshakeFailed):
        level = _log.warning if event.fault.of_certificate else _log.debug
        # Which of the two clocks is wrong is for a person to see.
        clock = {"clock": clock_says()} if event.fault.of_time else {}
        level(
            "peer refused in the TLS handshake",
            code=PEER_CERTIFICATE_REFUSED.code,
            frontend="tunnel",
            address=event.peer.rpartition(":")[0].strip("[]"),
            peer=event.peer,
            reason=event.fault.text,
            **clock,
        )
    elif isinstance(event, Suppressed):
        _log.warning(
            "more peers refused in the TLS handshake",
            code=PEER_CERTIFICATE_REFUSED.code,
            count=event.handshakes.total() + event.others,
        )
    else:
        _log.warning("grpc", code=GRPC_SAYS.code, text=event.text)
