"""Answers the node's local operator: what is kept here, and the logs and commands of the pods of this node.

The operator is somebody on this box and nobody above it. So nothing of theirs is ever passed on to the API server, and
what they see is what the node knows, also while the API server is reached; each answer says so (`Warning`). What they
may do is the box's own word: `[autonomy.operator] allow`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote, urlencode

import structlog

from edge_agent.autonomy.kept.feeds import Feeds
from edge_agent.autonomy.operator import kept_reads
from edge_agent.autonomy.operator.kubelet_access import KubeletAccess
from edge_agent.autonomy.operator.operator_tokens import Operator
from edge_agent.autonomy.upward.passing import Otherwise, Unreached, pass_on
from edge_agent.autonomy.upward.uplink import Uplink
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import Headers, Request, Response
from tunnel.aio.operate.audit import Audit, AuditUnavailable
from tunnel.aio.operate.recorded_command import recorded_command, recorded_principal
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.faults import KUBELET_REFUSES_AGENT, OPERATOR_MAY_NOT
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.spoken import spoken_s
from tunnel.kubeapi.encoding import JSON_TYPE, dicts, encode
from tunnel.kubeapi.request_info import RequestInfo, request_info
from tunnel.kubeapi.status import ApiError, Cause, Json, not_found

Action = Literal["read", "logs", "exec", "secrets"]
FRONTEND = "operator"
SPDY = "SPDY/3.1"
"""The protocol of exec that a kubelet takes from all API servers; kubectl tries WebSockets first, and this then."""
MAX_OF_CHARS = 500
"""The most characters of a namespace and name in a record: they are what the client wrote."""
_LOG_OPTIONS = frozenset(("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes"))
_EXEC_OPTIONS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
"""By the name of an option of the API server, what the kubelet calls it (kubelet v1.34 `pkg/kubelet/server`)."""

_log = structlog.get_logger("edge.autonomy")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """What the local operator may do."""

    allow: frozenset[Action]


class OperatorApi:
    """What answers the local operator."""

    def __init__(
        self, settings: OperatorSettings, feeds: Feeds, uplink: Uplink, kubelet: KubeletAccess, audit: Audit
    ) -> None:
        """Args:
        settings: what the operator may do.
        feeds: what is kept.
        uplink: says how old that is.
        kubelet: the way to the kubelet.
        audit: takes a record of each log and command.
        """
        self._settings = settings
        self._feeds = feeds
        self._uplink = uplink
        self._kubelet = kubelet
        self._audit = audit

    # Public

    async def serve(self, exchange: Exchange, request: Request, operator: Operator) -> None:
        """Answers a request.

        Raises:
            ApiError: the answer is an error.
            HttpError: the request is broken.
            StreamError: the client is gone.
        """
        info = request_info(request.method, request.path, request.query)
        if any(name.startswith("impersonate-") for name, _ in request.headers):
            raise _forbidden("act as somebody else")
        if request.method == "GET" and (found := kept_reads.discovery(info.path)) is not None:
            await exchange.respond(200, [JSON_TYPE], encode(found))
        elif info.is_resource and info.verb in ("get", "list") and not info.subresource:
            await self._read(exchange, request, info, operator)
        elif (info.verb, info.group, info.resource, info.subresource) == ("get", "", "pods", "log"):
            await self._logs(exchange, request, info, operator)
        elif (info.group, info.resource, info.subresource) == ("", "pods", "exec"):
            await self._exec(exchange, request, info, operator)
        else:
            raise _forbidden(f"{info.verb} {info.resource or info.path} here: it is the API server's alone")

    # Internal

    def _check(self, action: Action, operator: Operator, info: RequestInfo) -> None:
        if action in self._settings.allow:
            return
        about = self._about(action, operator, info)
        key = (operator.name, *about.values())
        self._audit.record_folded("refused", key, **about, code=OPERATOR_MAY_NOT.code, reason="not in allow")
        raise _forbidden(f'{info.verb} {info.resource}/{info.subresource or info.name}: "{action}" is not in allow')

    def _about(self, action: str, operator: Operator, info: RequestInfo) -> dict[str, object]:
        """Returns the fields that all records of a request have."""
        proof = f"token:{operator.token_id}"
        principal = Principal(kind=PrincipalKind.LOCAL_PROCESS, name=operator.name, proof=proof)
        of = "/".join(filter(None, (info.namespace, info.name)))
        about = {"frontend": FRONTEND, **recorded_principal(principal), "action": action, "resource": info.resource}
        return about | ({"of": of[:MAX_OF_CHARS]} if of else {})

    async def _read(self, exchange: Exchange, request: Request, info: RequestInfo, operator: Operator) -> None:
        self._check("read", operator, info)
        if info.resource == "secrets":
            self._check("secrets", operator, info)
        about = self._about("read", operator, info)
        self._audit.record_folded("read", (operator.name, info.resource, info.namespace, info.name), **about)
        accept, include = request.headers.get("accept"), dict(request.query).get("includeObject", "Metadata")
        answer = kept_reads.answer(self._feeds, info, accept, include)
        await exchange.respond(200, [JSON_TYPE, self._warning()], encode(answer))

    def _warning(self) -> tuple[str, str]:
        words = "this is what the node knows, not the cluster"
        if not self._uplink.is_up:
            words += f", and {self._uplink.words()}"
        elif stale := max((feed.stale_s for feed in self._feeds.all), default=0.0):
            words += f"; a part of it is not current for {spoken_s(stale)}"
        said = words.replace('"', "'").encode("ascii", "replace").decode()
        return "warning", f'299 longline "{said}"'

    async def _logs(self, exchange: Exchange, request: Request, info: RequestInfo, operator: Operator) -> None:
        self._check("logs", operator, info)
        container = self._container(info, request)
        options = [(name, value) for name, value in request.query if name in _LOG_OPTIONS]
        target = _target("containerLogs", info, container, options)
        await self._through(exchange, request, target, self._about("logs", operator, info) | {"container": container})

    async def _exec(self, exchange: Exchange, request: Request, info: RequestInfo, operator: Operator) -> None:
        self._check("exec", operator, info)
        if (request.upgrade or "").upper() != SPDY:
            raise ApiError(400, f"exec is done by {SPDY} here")  # at which kubectl falls back to it
        container = self._container(info, request)
        command = [value for name, value in request.query if name == "command"]
        options = [("command", word) for word in command]
        options += [
            (_EXEC_OPTIONS[name], "1")
            for name, value in request.query
            if name in _EXEC_OPTIONS and value.lower() not in ("0", "false")
        ]
        about = self._about("exec", operator, info) | {"container": container, "command": recorded_command(command)}
        await self._through(exchange, request, _target("exec", info, container, options), about)

    def _container(self, info: RequestInfo, request: Request) -> str:
        """Returns the container that is meant, of a pod that is known to be on this node.

        Raises:
            ApiError: there is no such pod or container, or it is not said which.
        """
        pod = kept_reads.pod(self._feeds, info.namespace, info.name)
        if pod is None:
            raise not_found("", "pods", info.name)
        names = list(_containers(pod))
        wanted = dict(request.query).get("container", "")
        if not wanted and len(names) > 1:
            raise ApiError(400, f"a container name must be specified for pod {info.name}, choose one of: {names}")
        if wanted and wanted not in names:
            raise ApiError(400, f"container {wanted[:80]} is not valid for pod {info.name}")
        return wanted or "".join(names)

    async def _through(self, exchange: Exchange, request: Request, target: str, about: dict[str, object]) -> None:
        """Passes a request on to the kubelet, and records its begin and its end."""
        try:
            self._audit.admit()
        except AuditUnavailable as error:
            raise ApiError(503, str(error), cause=Cause(error.fault.code, error.text)) from error
        self._audit.record("open", **about)
        ended = "closed"
        left_out = ("authorization", "accept-encoding")
        headers = [item for item in request.headers if item[0] not in left_out]
        asked = replace(request, target=target, headers=Headers([*headers, self._kubelet.credentials()]))
        try:
            await pass_on(exchange, asked, self._kubelet.lines, str(self._kubelet.address), _AS_KUBELET)
        except Unreached as error:
            ended = f"failed: {error.text}"
            if exchange.answered:
                raise
            code = KUBELET_REFUSES_AGENT.code
            _log.warning("the kubelet does nothing for the local operator", code=code, reason=error.text)
            text = f"the kubelet at {self._kubelet.address} does not do it for the agent: {error.text}"
            raise ApiError(503, text, cause=Cause(code, text)) from error
        except StreamError as error:
            ended = f"client gone, or cut off: {error}"
            raise
        except asyncio.CancelledError:
            ended = "agent stopped, or client gone"
            raise
        finally:
            self._audit.record("end", **about, reason=ended)


# Internal

_LOG_WAIT_S = 24 * 3600.0
"""Seconds that the head of an answer may take: a log that is followed has none before its first line."""


def _does_it(head: Response) -> bool:
    """Returns whether a kubelet knows the agent, whatever it answers."""
    return head.status not in (401, 403)


_AS_KUBELET = Otherwise(_LOG_WAIT_S, _does_it)


def _forbidden(what: str) -> ApiError:
    text = f"the local operator of this node may not {what}"
    return ApiError(403, text, cause=Cause(OPERATOR_MAY_NOT.code, text))


def _containers(pod: Json) -> Iterator[str]:
    spec = pod.get("spec") or {}
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for one in dicts(spec.get(kind)):
            yield str(one.get("name"))


def _target(what: str, info: RequestInfo, container: str, options: Iterable[tuple[str, str]]) -> str:
    place = "/".join(quote(part, safe="") for part in (info.namespace, info.name, container))
    query = urlencode(list(options))
    return f"/{what}/{place}{'?' if query else ''}{query}"
