"""Serves exec, attach, port-forward and log, which go on to the kubelet API of the pod's agent.

An upgrade is passed as it is: kubectl and the kubelet speak WebSocket or SPDY with each other, and only bytes pass
here. What goes wrong before the upgrade is answered as a `Status`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlencode

from cloud_server.frontends.fleet.access import Access
from cloud_server.frontends.fleet.actions import SUBRESOURCES, action_of
from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.credentials import offered_protocols
from cloud_server.frontends.fleet.kubelet import KubeletCall, asking_kubelet, ending, start
from cloud_server.frontends.fleet.mirror import Mirror
from cloud_server.frontends.fleet.objects import claim
from cloud_server.frontends.fleet.older_kubelets import OlderKubelets
from cloud_server.frontends.fleet.pod_hints import pods_called
from cloud_server.frontends.fleet.pod_names import box_of, own_name
from cloud_server.frontends.fleet.pods import choose_container, containers, is_of_box
from cloud_server.frontends.fleet.ports import ports_of
from cloud_server.frontends.fleet.refusals import Decided, forbidden
from cloud_server.frontends.fleet.routes import ResourceRequest
from cloud_server.frontends.fleet.stream_errors import from_stream_error
from cloud_server.opens.door import Door
from cloud_server.opens.request import OpenRequest
from cloud_server.rights.ask import WITH_ACCOUNT, Verb
from cloud_server.rights.engine import Decision
from cloud_server.trust.caller import Caller
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.gone import unless_gone
from tunnel.aio.http.http1 import HeaderItems, Headers, Request
from tunnel.aio.operate.recorded_command import recorded_command
from tunnel.aio.sessions.carry import carry
from tunnel.core.wire.errors import Code, OpenRefused, StreamError
from tunnel.core.wire.faults import FAULTS, UPGRADE_MISSING, Fault, coded
from tunnel.kubeapi.copy_commands import is_copy
from tunnel.kubeapi.encoding import decode
from tunnel.kubeapi.status import ApiError, Json, not_found
from tunnel.kubeapi.store import ObjectStore

MAX_ERROR_BYTES = 64 * 1024
MAX_NAME_CHARS = 253 + 64
"""The length of a pod's name with its namespace in a record; what a client asked for may be no name at all."""
_CODES = {403: Code.NOT_ALLOWED, 404: Code.NO_SERVICE}
"""The codes of what is refused before an agent is asked, by HTTP status."""
_LOG_OPTIONS = (
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
)
_STREAMS = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))
_REQUEST_HEADERS = ("upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions")
_RESPONSE_HEADERS = ("upgrade", "sec-websocket-accept", "sec-websocket-protocol", "sec-websocket-extensions")
_STREAM_PROTOCOL = "x-stream-protocol-version"


@dataclass(slots=True, kw_only=True)
class _Asked:
    """The subject of a request; it is filled in while that is found out."""

    action: str
    namespace: str
    pod: str
    container: str
    """The container as asked for; empty for the pod's first."""
    command: list[str]
    verb: Verb
    """The verb of the rights. It is `cp` for a command of `kubectl cp` by somebody who may not run others."""
    ports: list[int] = field(default_factory=list)
    """The ports to forward; empty when the client names them behind the upgrade."""
    agent: str = ""
    """The agent that has the pod; empty when there is no such pod."""
    rule: str = ""
    """The rule that refused the request; empty while none has."""
    asked: bool = False
    """Whether the door was asked for a stream; the door records what becomes of it."""

    def about(self) -> dict[str, object]:
        """Returns what the record says of the request."""
        return {
            "action": self.action,
            "pod": f"{self.namespace}/{self.pod}"[:MAX_NAME_CHARS],
            "container": self.container[:MAX_NAME_CHARS],
            "command": recorded_command(self.command),
        }


class Proxy:
    """The server of the streaming subresources of pods."""

    def __init__(self, mirror: Mirror, store: ObjectStore, door: Door, access: Access) -> None:
        self._access = access
        self._mirror = mirror
        self._store = store
        self._door = door
        self._older = OlderKubelets()

    # Public

    async def serve(self, exchange: Exchange, request: Request, about: ResourceRequest, caller: Caller) -> None:
        """Serves one request.

        Raises:
            ApiError: it failed, and nothing was answered yet.
            StreamError: the client is gone.
        """
        action = about.resource.subresource
        asked = _Asked(
            action=action,
            namespace=about.namespace,
            pod=about.name,
            container="" if action in _OF_WHOLE_PODS else about.query.text("container"),
            command=about.query.every("command"),
            verb=SUBRESOURCES[action],
        )
        try:
            asked.agent, pod = self._find(about, caller)
            self._check_some(about, asked, caller)
            if action not in _OF_WHOLE_PODS:
                asked.container = await self._container(about, pod)
            elif action == "portforward":
                asked.ports = ports_of(request, about.query)
            self._check(exchange, about, asked, caller, pod)
            if action in _TARGETS:
                await self._read(exchange, about, asked, caller)
            else:
                await self._stream(exchange, request, about, asked, caller)
        except ApiError as error:
            if not asked.asked:
                refused = OpenRefused(error.message, _CODES.get(error.code, Code.REFUSED))
                rule = {"rule": asked.rule} if asked.rule else {}
                self._door.refuse(_asking(exchange, asked, caller), refused, status=error.code, **rule)
            raise

    # Internal

    def _check_some(self, about: ResourceRequest, asked: _Asked, caller: Caller) -> None:
        """Makes sure that a caller may do such a thing to some part of the box, before anything is told of it.

        Raises:
            ApiError: 403; 404 of a box that the caller is not to know of.
        """
        found = self._access.possible(caller.principal, caller.scope, action_of(about), asked.agent)
        if not found.allowed and not (is_copy(asked.command) and self._access.may_copy(caller, about, asked.agent)):
            raise self._refusal(about, asked, caller, found)

    def _check(self, exchange: Exchange, about: ResourceRequest, asked: _Asked, caller: Caller, pod: Json) -> None:
        """Makes sure that a caller may do exactly this. The door asks once more, for the record and for what runs.

        Raises:
            ApiError: as above.
        """
        decision = self._decide(exchange, asked, caller)
        if not decision.allowed and asked.action == "exec" and is_copy(asked.command):
            copying = self._decide(exchange, replace(asked, verb=Verb.CP), caller)
            if copying.allowed:
                asked.verb, decision = Verb.CP, copying
        if not decision.allowed:
            raise self._refusal(about, asked, caller, decision)
        demands = decision.accounts is not None or decision.record
        if asked.verb in WITH_ACCOUNT and demands and not is_of_box(pod, asked.agent):
            text = "it demands an account or a recording, which only a box's own pod has"
            raise self._refusal(about, asked, caller, decision._replace(reason=text))

    def _decide(self, exchange: Exchange, asked: _Asked, caller: Caller) -> Decision:
        asking = _asking(exchange, asked, caller)
        assert asking.route is not None
        return self._access.policy.decide(asking, asking.route)

    def _refusal(self, about: ResourceRequest, asked: _Asked, caller: Caller, decided: Decided) -> ApiError:
        asked.rule = decided.rule
        if not self._access.sight(caller).shows(asked.agent):
            return not_found("", "pods", about.name)
        return forbidden(caller.name, action_of(about), decided)

    def _find(self, about: ResourceRequest, caller: Caller) -> tuple[str, Json]:
        pod = self._store.get("pods", (about.namespace, about.name))
        if pod is None:
            sight = self._access.sight(caller)
            raise not_found("", "pods", about.name, pods_called(self._mirror, about.namespace, about.name, sight))
        return box_of(about.namespace, about.name), pod

    async def _container(self, about: ResourceRequest, pod: Json) -> str:
        wanted = about.query.text("container")
        if wanted and wanted not in containers(pod):
            await self._mirror.freshen(about.namespace, about.name)
            pod = self._store.get("pods", (about.namespace, about.name)) or pod
        return choose_container(pod, wanted)

    async def _start(
        self, exchange: Exchange, asked: _Asked, caller: Caller, method: str, target: str, headers: HeaderItems
    ) -> KubeletCall:
        asked.asked = True
        asking = _asking(exchange, asked, caller)
        return await unless_gone(exchange, start(self._door, asking, method, target, headers))

    async def _stream(
        self, exchange: Exchange, request: Request, about: ResourceRequest, asked: _Asked, caller: Caller
    ) -> None:
        if request.upgrade is None:
            raise ApiError(400, f"{asked.action} needs an upgrade to WebSocket or SPDY", cause=cause(UPGRADE_MISSING))
        offered = offered_protocols(request.headers)
        view = self._mirror.view(asked.agent)
        if view is not None and self._older.turn_down(view, offered):
            raise ApiError(
                403,
                f"the kubelet of agent {asked.agent} speaks none of {', '.join(offered)}",
                cause=cause(UPGRADE_MISSING),
            )
        headers = _upgrade_headers(request.headers)
        target = _stream_target(about, asked)
        async with ending(await self._start(exchange, asked, caller, request.method, target, headers)) as answer:
            if answer.response.status != 101:
                if view is not None:
                    self._older.note(view, offered, answer.response)
                raise await _kubelet_error(answer, asked)
            conn = await exchange.take_over(_answer_headers(answer.response.headers), answer.response.reason)

            async def pass_first() -> bytes:
                if first := answer.connection.trailing_data():
                    await conn.write(first)
                return b""

            await carry(answer.live.opened(), conn, pass_first)

    async def _read(self, exchange: Exchange, about: ResourceRequest, asked: _Asked, caller: Caller) -> None:
        target = _TARGETS[asked.action](about, asked)
        async with ending(await self._start(exchange, asked, caller, "GET", target, ())) as answer:
            if answer.response.status != 200:
                raise await _kubelet_error(answer, asked)
            await exchange.start(200, [("content-type", _TYPES.get(asked.action, "text/plain"))])
            try:
                await unless_gone(exchange, _copy_log(exchange, answer))
            except StreamError:
                exchange.abort()  # an end would promise that this is all there is
                raise


def _asking(exchange: Exchange, asked: _Asked, caller: Caller) -> OpenRequest:
    unit = asked.container[:MAX_NAME_CHARS]
    return asking_kubelet(
        caller, asked.agent, exchange.peer, asked.about(), verb=asked.verb, unit=unit, command=asked.command,
        ports=asked.ports,
    )  # fmt: skip


async def _copy_log(exchange: Exchange, answer: KubeletCall) -> None:
    while chunk := await answer.connection.read_chunk():
        await exchange.send(chunk)
    await exchange.finish()


async def _kubelet_error(answer: KubeletCall, asked: _Asked) -> ApiError:
    """Returns the kubelet's refusal as a `Status`; it may be one already, or plain text."""
    try:
        body = await answer.connection.read_body(MAX_ERROR_BYTES)
    except StreamError as error:
        return from_stream_error(error, asked.agent)
    status = answer.response.status
    code = status if 400 <= status < 600 else 502
    try:
        parsed = decode(body)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict) and parsed.get("kind") == "Status" and isinstance(parsed.get("message"), str):
        reason, text = parsed.get("reason"), claim(parsed["message"])
        message = text if asked.agent in text else f"agent {asked.agent}: {text}"
        fault = _fault_of(parsed)
        if fault is not None:  # kubectl prints the message and no cause
            message = coded(message, fault)
        named = cause(fault) if fault is not None else None
        return ApiError(code, message, claim(reason) if isinstance(reason, str) else "", cause=named)
    text = claim(body.decode("utf-8", "replace").strip())
    return ApiError(code, f"agent {asked.agent}: {text or answer.response.reason or status}")


def _fault_of(status: Json) -> Fault | None:
    """Returns the cause that a kubelet of ours names in its `Status`; None for any other kubelet."""
    match status.get("details"):
        case {"causes": [{"reason": str() as code}, *_]}:
            return FAULTS.get(code)
    return None


def _pod_path(kind: str, asked: _Asked) -> str:
    parts = [asked.namespace, own_name(asked.pod), *filter(None, [asked.container])]
    return "/".join(["", kind, *(quote(part, safe="") for part in parts)])


def _stream_target(about: ResourceRequest, asked: _Asked) -> str:
    if asked.action == "portforward":
        ports = urlencode([("port", port) for port in about.query.every("ports")])
        return _pod_path("portForward", asked) + (f"?{ports}" if ports else "")
    query = [(theirs, "1") for ours, theirs in _STREAMS if about.query.flag(ours)]
    query += [("command", word) for word in asked.command]
    return f"{_pod_path(asked.action, asked)}?{urlencode(query)}"


def _log_target(about: ResourceRequest, asked: _Asked) -> str:
    query = [(name, value) for name in _LOG_OPTIONS for value in about.query.every(name)[:1]]
    return _pod_path("containerLogs", asked) + (f"?{urlencode(query)}" if query else "")


def _recordings_target(about: ResourceRequest, asked: _Asked) -> str:
    number = about.query.text("id")
    return _pod_path("recordings", asked) + (f"?{urlencode([('id', number)])}" if number else "")


_TARGETS = {"log": _log_target, "recordings": _recordings_target}
"""What a kubelet is asked for, by the subresource, for what is read to its end."""
_OF_WHOLE_PODS = ("portforward", "recordings")
"""The actions for which no container is named."""
_TYPES = {"recordings": "application/octet-stream"}
"""The content types of answers that are not text. A list of recordings is JSON, and one recording has a line of JSON
for each event; the client knows what it asked for."""


def _upgrade_headers(headers: Headers) -> list[tuple[str, str]]:
    """Returns only those headers that the upgrade is made of: credentials, cookies and origins end here."""
    passed = [("connection", "Upgrade")]
    passed += [(name, value) for name, value in headers if name in (*_REQUEST_HEADERS, _STREAM_PROTOCOL)]
    if protocols := offered_protocols(headers):
        passed.append(("sec-websocket-protocol", ", ".join(protocols)))
    return passed


def _answer_headers(headers: Headers) -> list[tuple[str, str]]:
    return [
        ("connection", "Upgrade"),
        *((name, value) for name, value in headers if name in (*_RESPONSE_HEADERS, _STREAM_PROTOCOL)),
    ]
