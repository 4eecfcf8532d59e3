"""The kubelet API of a plain box: routing, what is allowed, and the answers, on any number of HTTP connections.

Default deny: only what the box's own configuration names is listed, run or read; nothing of a request becomes a path, a
unit or an account.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

from edge_agent.hostkubelet.audit import MAX_NAME_CHARS, RequestRecord, audited
from edge_agent.hostkubelet.channels import ChannelSocket, negotiate
from edge_agent.hostkubelet.container_states import unusable
from edge_agent.hostkubelet.exec_request import ExecRequest, begin_recording, command_of
from edge_agent.hostkubelet.exec_session import ExecSession
from edge_agent.hostkubelet.limits import KubeletLimits
from edge_agent.hostkubelet.log_options import parse_log_options
from edge_agent.hostkubelet.log_request import ClientGone, LogBroken, send_log
from edge_agent.hostkubelet.offer import Offer
from edge_agent.hostkubelet.pod import HOST, NAMESPACE, Container, Kind, Transitions, pod_list
from edge_agent.hostkubelet.port_forward import Dial, PortForward
from edge_agent.hostkubelet.port_forward import negotiate as negotiate_forward
from edge_agent.hostkubelet.recording_requests import RecordingBroken, send_list, send_recording
from edge_agent.hostkubelet.recordings import Recordings
from edge_agent.hostkubelet.running import Running
from edge_agent.hostkubelet.settings import HostSettings, SettingsError
from edge_agent.hostkubelet.spawn import CommandSpec
from edge_agent.hostkubelet.status import JSON_TYPE, KubeletError
from edge_agent.hostkubelet.units import ContainerState
from edge_agent.hostkubelet.usage import Usage
from tunnel.aio.exits.served import Served
from tunnel.aio.http.http1 import MAX_LONG_HEAD_BYTES, HttpError, Refusal, Request, ServerConnection
from tunnel.aio.operate.audit import Audit
from tunnel.aio.process.blocking import NotAnswering
from tunnel.aio.process.limit_use import LimitUse
from tunnel.aio.process.parts import PartFailed
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.duplex import Duplex
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code, OpenRefused, StreamError
from tunnel.core.wire.faults import (
    CONTAINER_UNKNOWN,
    HOST_RUNS_NO_COMMANDS,
    NOT_ALLOWED_BY_BOX,
    NOT_ON_A_PLAIN_BOX,
    REQUEST_INVALID,
    TOO_MANY_COMMANDS,
    USAGE_UNKNOWN,
)
from tunnel.core.wire.principal import Principal
from tunnel.kubeapi.spdy import SpdyError

AGAIN = "try again when some have ended"


@dataclass(frozen=True, slots=True)
class _Call:
    """One request and where its answer goes."""

    connection: ServerConnection
    duplex: Duplex
    request: Request
    principal: Principal
    trace_id: str


class HostKubelet:
    """The built-in kubelet."""

    def __init__(
        self,
        agent_name: str,
        settings: HostSettings,
        audit: Audit,
        dial: Dial | None = None,
        *,
        limits: KubeletLimits = KubeletLimits(),  # noqa: B008  # immutable
        journalctl: str = "journalctl",
        systemctl: str = "systemctl",
    ) -> None:
        """Checks the settings. What they name is looked at when it is asked for, in threads of its own.

        Args:
            agent_name: name of the pod and of its node.
            settings: what the box allows.
            audit: takes a record of each command and log.
            dial: connects to a port of this box where and as long as its policy allows that; None: no port is
                forwarded.
            limits: what clients may have at once.
            journalctl: program that reads the journal.
            systemctl: program that knows the units' states.

        Raises:
            SettingsError: the settings ask for what no box can give.
        """
        self._name = agent_name
        self._audit = audit
        self._programs = journalctl, systemctl
        self.limits = limits
        self._long_heads = Budget(total_bytes=limits.head_bytes)
        self._running = Running()
        self._usage = Usage()
        self._since = datetime.now(UTC)
        self._offer = self._offered(settings)
        self._served = Served()
        self._recordings = Recordings(settings.recording)
        self._transitions = Transitions(self._since)
        self._dial = dial
        self._execs = 0
        self._forwards = 0
        self._open_logs = 0
        self._closing = False

    def limit(self, limits: KubeletLimits) -> None:
        """Lets clients have so much from now on; what runs goes on."""
        self.limits, self._long_heads.total_bytes = limits, limits.head_bytes

    def use_of_limits(self) -> Iterator[LimitUse]:
        """Yields how much of each limit is used."""
        limits = self.limits
        yield LimitUse("commands", limits.commands, self._execs)
        yield LimitUse("logs", limits.logs, self._open_logs)
        yield LimitUse("port_forwards", limits.port_forwards, self._forwards)
        yield LimitUse("head_bytes", limits.head_bytes, self._long_heads.used_bytes)

    def apply(self, settings: HostSettings) -> int:
        """Offers something else from now on, on connections that are open too.

        What runs and is offered no more ends at once, for both sides; all else goes on.

        Returns:
            How many commands and logs were ended.

        Raises:
            SettingsError: the settings ask for what no box can give; nothing was changed.
        """
        self._offer = self._offered(settings, self._offer)
        if settings.recording.folder == self._recordings.settings.folder:
            self._recordings.settings = settings.recording
        else:
            self._recordings = Recordings(settings.recording)
        return self._served.review()

    async def find_accounts(self) -> None:
        """Looks up the accounts that commands run as, before anybody wants one; a directory may have them only later.

        Raises:
            PartFailed: this box cannot run commands as one of them now; whoever tries one is told why.
        """
        if faults := await unusable(self._offer.accounts.values()):
            raise PartFailed("; ".join(faults))

    async def serve(self, duplex: Duplex, principal: Principal, trace_id: str = "") -> None:
        """Serves one connection until it ends; owns it.

        Args:
            duplex: the connection.
            principal: who is at its other end, for the audit record.
            trace_id: the connection's trace id, for the same; empty when it has none.
        """
        connection = ServerConnection(duplex, MAX_LONG_HEAD_BYTES, self._long_heads, _refusal)
        try:
            while (request := await connection.next_request()) is not None:
                if not await self._answer(_Call(connection, duplex, request, principal, trace_id)):
                    break
        except (StreamError, ClientGone):
            pass  # the client left, which needs no answer
        except (LogBroken, RecordingBroken) as error:
            # A clean end would claim that this is all.
            duplex.reset(Code.INTERNAL, str(error))
            return
        except BaseException:
            duplex.reset(Code.INTERNAL, "the agent gave up the request")
            raise
        finally:
            connection.release()
        await duplex.aclose()

    async def states(self) -> dict[Container, ContainerState]:
        """Returns the state of everything that is offered."""
        offer = self._offer
        states = await offer.states.read()
        return {container: states[name] for name, container in offer.containers.items()}

    async def aclose(self) -> None:
        """Refuses what comes and ends all commands, with SIGKILL after a grace of 5 s where they do not obey."""
        self._closing = True
        await self._running.aclose()
        await self._recordings.aclose()

    # Internal

    def _offered(self, settings: HostSettings, before: Offer | None = None) -> Offer:
        journalctl, systemctl = self._programs
        return Offer(
            settings, self._running, self._since, journalctl=journalctl, systemctl=systemctl, before=before
        )  # fmt: skip

    async def _answer(self, call: _Call) -> bool:
        """Answers one request; returns False when the connection cannot carry another one."""
        try:
            return await self._route(call)
        except KubeletError as error:
            await call.connection.respond(error.status, [JSON_TYPE], error.body())
            return True
        except HttpError as error:  # its body is broken
            if call.connection.answered:
                raise
            said = _refusal(error)
            await call.connection.respond(error.status, [JSON_TYPE, ("connection", "close")], said.body)
            return False

    async def _route(self, call: _Call) -> bool:
        if self._closing:
            raise KubeletError(503, "the agent is stopping")
        parts = [unquote(part) for part in call.request.raw_path.split("/")[1:]]
        match parts:
            case ["healthz"]:
                await call.connection.respond(200, [("content-type", "text/plain")], b"ok")
            case ["pods"]:
                await call.connection.respond(200, [JSON_TYPE], await self._pods())
            case ["stats", "summary"]:
                await call.connection.respond(200, [JSON_TYPE], json.dumps(await self._summary()).encode())
            case ["containerLogs", namespace, pod, name]:
                with audited(self._record(call, "log", name)) as record:
                    container = self._container(namespace, pod, name)
                    with self._held(call, lambda: self._log_objection(container)):
                        await self._send_log(call, container, record)
            case ["exec", namespace, pod, name]:
                with audited(self._record(call, "exec", name, command_of(call.request))) as record:
                    await self._exec(call, self._container(namespace, pod, name), record)
                return False
            case ["recordings", namespace, pod]:
                self._check_pod(namespace, pod)
                await self._send_recordings(call)
            case ["attach", namespace, pod, container]:
                self._container(namespace, pod, container)
                raise KubeletError(
                    400, "nothing on a plain box can be attached to: use exec or logs", NOT_ON_A_PLAIN_BOX
                )
            case ["portForward", namespace, pod]:
                self._check_pod(namespace, pod)
                await self._port_forward(call)
                return False
            case _:
                raise KubeletError(
                    404,
                    "a plain box serves /pods, /exec, /portForward, /containerLogs, /recordings, /stats/summary "
                    "and /healthz",
                )
        return True

    def _record(
        self, call: _Call, action: str, container: str, command: list[str] | None = None, target: str = ""
    ) -> RequestRecord:
        def why_ended() -> StreamError | None:
            return call.duplex.error if isinstance(call.duplex, Stream) else None

        return RequestRecord(
            audit=self._audit, action=action, principal=call.principal, trace_id=call.trace_id, container=container,
            command=command, target=target, why_ended=why_ended,
        )  # fmt: skip

    @contextmanager
    def _held(self, call: _Call, objection: Callable[[], OpenRefused | None]) -> Iterator[None]:
        """Makes a block do what is asked, and ends it when the box objects.

        Raises:
            OpenRefused: the objection.
        """

        def tell(refusal: OpenRefused) -> None:
            call.duplex.reset(refusal.code, refusal.told)

        with self._served.hold(objection, tell):
            yield

    def _log_objection(self, container: Container) -> OpenRefused | None:
        return None if self._offer.still_offers(container) else _not_offered(container.name)

    def _exec_objection(self, call: _Call, wanted: ExecRequest, account: str) -> OpenRefused | None:
        if HOST not in self._offer.containers:
            return _not_offered(HOST)
        try:
            account_now = self._offer.rules.account_for(call.principal, wanted.argv, wanted.terms.accounts)
        except KubeletError as error:
            return OpenRefused(error.text, Code.NOT_ALLOWED, error.fault)
        if account_now == account:
            return None
        return OpenRefused(f"this command is not run as {account} any more on this box", Code.NOT_ALLOWED)

    async def _summary(self) -> dict[str, object]:
        try:
            return await self._usage.summary(self._name, HOST if HOST in self._offer.containers else None)
        except (OSError, ValueError, LookupError, NotAnswering) as error:
            raise KubeletError(500, f"this box does not tell what it uses: {error}", USAGE_UNKNOWN) from None

    def _check_pod(self, namespace: str, pod: str) -> None:
        if (namespace, pod) != (NAMESPACE, self._name):
            raise KubeletError(
                404, f'pods "{pod}" not found in the namespace "{namespace}" of this box', CONTAINER_UNKNOWN
            )

    def _container(self, namespace: str, pod: str, name: str) -> Container:
        self._check_pod(namespace, pod)
        if name == HOST and not self._offer.rules:
            raise KubeletError(
                403,
                "this box allows no commands: its owner can set exec = true in [host] of edge-agent.toml",
                HOST_RUNS_NO_COMMANDS,
            )
        container = self._offer.containers.get(name)
        if container is None:
            names = ", ".join(self._offer.containers) or "none"
            raise KubeletError(404, f'this box offers no container "{name}", only: {names}', CONTAINER_UNKNOWN)
        return container

    async def _pods(self) -> bytes:
        offer = self._offer
        states, now = await offer.states.read(), datetime.now(UTC)
        offered = [*offer.containers.values()]
        return json.dumps(pod_list(self._name, offered, states, self._since, self._transitions, now)).encode()

    async def _send_log(self, call: _Call, container: Container, record: RequestRecord) -> None:
        def sent(count: int) -> None:
            record.bytes_out += count

        options = parse_log_options(call.request.query, datetime.now(UTC))
        if self._open_logs >= self.limits.logs:
            raise KubeletError(
                429,
                f"{self.limits.logs} logs of this box are being read already: {AGAIN}",
                TOO_MANY_COMMANDS,
            )
        self._open_logs += 1
        try:
            log = await self._offer.logs.open(container, options)
            try:
                record.begin()
                await send_log(call.connection, log, options, sent)
            finally:
                log.close()
        finally:
            self._open_logs -= 1

    async def _exec(self, call: _Call, container: Container, record: RequestRecord) -> None:
        """Runs a command; the connection is used up afterwards."""
        if container.kind is not Kind.HOST:
            raise KubeletError(
                400,
                f'commands run on the box itself only: use -c {HOST}, "{container.name}" is a log',
                HOST_RUNS_NO_COMMANDS,
            )
        wanted = ExecRequest.read(call.request)
        account = record.account = self._offer.rules.account_for(call.principal, wanted.argv, wanted.terms.accounts)
        if self._execs >= self.limits.commands:
            raise KubeletError(
                429,
                f"{self.limits.commands} commands run on this box already: try again when some have ended",
                TOO_MANY_COMMANDS,
            )
        headers = negotiate(call.request)
        self._execs += 1
        try:
            with self._held(call, lambda: self._exec_objection(call, wanted, account)):
                spec = await self._spec(wanted, account)
                recording = await begin_recording(self._recordings, wanted, call.principal)
                try:
                    record.recording = recording.id if recording is not None else ""
                    record.begin()
                    socket = ChannelSocket(call.duplex, await call.connection.upgrade(headers))
                    await _run(ExecSession(socket, spec, wanted.outputs, self._running, recording), record)
                finally:
                    if recording is not None:
                        recording.close()
        finally:
            self._execs -= 1

    async def _send_recordings(self, call: _Call) -> None:
        """Answers with the list of recordings or, where the query names one, with that."""
        number = next((value for name, value in call.request.query if name == "id"), "")
        with audited(self._record(call, "recordings", "")) as record:

            def sent(count: int) -> None:
                record.bytes_out += count

            record.recording = number[:MAX_NAME_CHARS]
            if not number:
                await send_list(call.connection, self._recordings, record.begin)
                return
            if self._open_logs >= self.limits.logs:
                raise KubeletError(
                    429,
                    f"{self.limits.logs} logs of this box are being read already: try again later",
                    TOO_MANY_COMMANDS,
                )
            self._open_logs += 1
            try:
                await send_recording(call.connection, self._recordings, number, record.begin, sent)
            finally:
                self._open_logs -= 1

    async def _port_forward(self, call: _Call) -> None:
        """Forwards ports for one client; the connection is used up afterwards."""
        if self._dial is None:
            raise KubeletError(403, "this box forwards no ports", NOT_ALLOWED_BY_BOX)
        headers, transport = negotiate_forward(call.request)
        if self._forwards >= self.limits.port_forwards:
            raise KubeletError(
                429,
                f"{self.limits.port_forwards} clients forward ports of this box already: try again later",
                TOO_MANY_COMMANDS,
            )
        self._forwards += 1
        try:
            early = await call.connection.upgrade(headers)
            forward = PortForward(
                transport(call.duplex, early),
                self._dial,
                lambda target: self._record(call, "portforward", "", target=target),
                pod=self._name,
            )
            await forward.run()
        except SpdyError as error:
            call.duplex.reset(Code.PROTOCOL_ERROR, str(error))
        finally:
            self._forwards -= 1

    async def _spec(self, wanted: ExecRequest, name: str) -> CommandSpec:
        lookup = self._offer.accounts[name]
        try:
            account, directory = await lookup.account(), await lookup.working_directory()
        except SettingsError as error:
            raise KubeletError(503, f"this box runs no commands now: [host] {error}", HOST_RUNS_NO_COMMANDS) from error
        return CommandSpec(
            argv=wanted.argv, account=account, directory=directory, tty=wanted.tty, stdin=wanted.stdin
        )  # fmt: skip


def _refusal(error: HttpError) -> Refusal:
    """Returns the answer to what cannot be read as a request."""
    return Refusal(JSON_TYPE[1], KubeletError(error.status, error.text, REQUEST_INVALID).body())


def _not_offered(name: str) -> OpenRefused:
    return OpenRefused(f"{name} is not offered any more by [host] of this box", Code.NOT_ALLOWED)


async def _run(session: ExecSession, record: RequestRecord) -> None:
    try:
        await session.run()
        record.ended = "client gone" if session.result.exit_code is None else "exited"
        if session.result.lost is not None:
            record.failed(session.result.lost)
    finally:
        result = session.result
        record.exit_code = result.exit_code
        record.bytes_in, record.bytes_out = result.received_bytes, result.sent_bytes
