"""Answers what is asked of a running server, on its admin socket and at the fleet API's listener: see openapi.json."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cloud_server.agents.agents import Agents
from cloud_server.opens.live import LiveOpens
from cloud_server.operate import open_list
from cloud_server.operate.agent_book import AgentBook
from cloud_server.operate.events import EventBook
from cloud_server.operate.status import Status
from cloud_server.trust.administration import Administration, AdministrationFailed
from cloud_server.trust.tokens import DEFAULT_LIFE
from tunnel.aio.operate import daemon_calls
from tunnel.aio.operate.admin import AdminCall, AdminError, Handler, Listing, Routes
from tunnel.aio.operate.audit import Audit
from tunnel.aio.operate.bodies import Body
from tunnel.aio.operate.desired_state import Reloaded
from tunnel.core.wire import faults
from tunnel.core.wire.names import close_name, meant
from tunnel.core.wire.principal import PrincipalKind

FRAME_LOG_S = 600.0
"""Seconds after which an agent's frames are logged no more: a line for each is much, and whoever looks may forget it.
"""
MAX_LIFE = timedelta(days=3650)
MAX_REASON_CHARS = 200

Json = dict[str, Any]
Done = tuple[object, Json]
"""What is answered, and what the record says of what was done."""
Change = Callable[[AdminCall], Awaitable[Done]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The parts of the server that the answers are made of."""

    status: Status
    book: AgentBook
    agents: Agents
    live: LiveOpens
    events: EventBook
    administration: Administration
    reload: Callable[[str], Awaitable[Reloaded]]
    """Reads the configuration again, and is told why it does."""
    config_path: str
    audit: Audit


class Api:
    """The admin API: it adds its routes once, and answers them."""

    def __init__(self, served: Served, routes: Routes) -> None:
        """Adds the routes to `routes`. Whoever may ask is an administrator; each change is recorded with who asked for
        it.
        """
        self._served = served
        for method, path, handler in (
            ("GET", "status", self._status),
            ("GET", "agents", self._agents),
            ("GET", "agents/{name}", self._agent),
            ("GET", "opens", self._opens),
            ("GET", "events", self._events),
            ("GET", "whoami", self._whoami),
        ):
            routes.add(method, path, self._read(path, handler))
        for method, path, action, change in (
            ("DELETE", "opens/{id}", "kill_open", self._kill),
            ("PUT", "agents/{name}/frame-log", "set_frame_log", self._set_frame_log),
            ("PUT", "log-level", "set_log_level", self._set_log_level),
            ("POST", "reload", "reload", self._reload),
            ("POST", "join-tokens", "create_join_token", self._create_join_token),
            ("POST", "user-tokens", "create_user_token", self._create_user_token),
            ("POST", "agents/{name}/revoke", "revoke_agent", self._revoke),
            ("POST", "agents/{name}/forget", "forget_agent", self._forget),
        ):
            routes.add(method, path, self._recorded(action, change))

    # Internal - records

    def _recorded(self, action: str, change: Change) -> Handler:
        """Returns a handler that makes a change and records who did what, whether or not it succeeded."""

        async def handle(call: AdminCall) -> object:
            try:
                answer, about = await change(call)
            except AdministrationFailed as error:
                failed = AdminError(_HTTP.get(error.fault, 400), error.text, code=error.fault.code)
                self._record(call, action, _named(call), failed)
                raise failed from error
            except AdminError as error:
                self._record(call, action, _named(call), error)
                raise
            self._record(call, action, about, None)
            return answer

        return handle

    def _record(self, call: AdminCall, action: str, about: Json, error: AdminError | None) -> None:
        outcome = {"done": True} if error is None else {"done": False, "code": error.code or None, "reason": error.text}
        self._served.audit.record("admin", **_who(call), action=action, **about, **outcome)

    def _read(self, path: str, handler: Handler) -> Handler:
        async def handle(call: AdminCall) -> object:
            if call.principal.kind is not PrincipalKind.LOCAL_PROCESS:  # who may read it there may read the log, too
                key, about = (call.principal.name, path), {"resource": f"longline/{path}", **_named(call)}
                self._served.audit.record_folded("read", key, **_who(call), **about)
            return await handler(call)

        return handle

    # Internal - what is shown

    async def _status(self, _call: AdminCall) -> object:
        return await self._served.status.as_json()

    async def _agents(self, _call: AdminCall) -> object:
        return Listing("agents", self._served.book.each())

    async def _agent(self, call: AdminCall) -> object:
        return self._known(call.values["name"])

    async def _opens(self, call: AdminCall) -> object:
        if call.flag("watch"):
            return open_list.watch(self._served.live)
        return Listing("opens", open_list.listed(self._served.live))

    async def _events(self, call: AdminCall) -> object:
        since, limit = _number(call, "since", 0), _number(call, "limit", 0)
        if call.flag("follow"):
            return self._served.events.follow(since)
        found = self._served.events.since(since)
        return {"events": [event.as_json() for event in (found[-limit:] if limit else found)]}

    async def _whoami(self, call: AdminCall) -> object:
        who = call.principal
        return {
            "kind": who.kind.label,
            "name": who.name,
            "groups": list(who.groups),
            "proof": who.proof,
            "until": call.limits.get("until"),
            "scope": call.limits.get("scope") or {"frontends": None, "agents": None, "verbs": None},
        }

    # Internal - what is changed

    async def _kill(self, call: AdminCall) -> Done:
        number = call.values["id"]
        live = self._served.live.get(number)
        if live is None:
            text = f"there is no open {number[:40]}: it is over, or there was none"
            raise AdminError(404, text, code=faults.OPEN_UNKNOWN.code, remedy="longline opens shows those that run")
        view = live.view()
        self._served.live.kill(number, f"{call.principal} ended the connection")
        what = f"connection {number} of {view.kind}:{view.who} to {view.target} was ended by {call.principal}"
        self._served.events.tell("killed", what, view.agent)
        about = {"id": number, "ended_trace_id": view.trace_id, "agent": view.agent, "target": view.target}
        return {"id": number, "killed": True}, about

    async def _set_frame_log(self, call: AdminCall) -> Done:
        name, enabled = call.values["name"], Body(call.body).flag("enabled")
        self._known(name)
        if not self._served.agents.log_frames(name, FRAME_LOG_S if enabled else 0):
            raise AdminError(409, f"agent {name} is away: there is nothing to log", code=faults.AGENT_AWAY.code)
        until = datetime.now(UTC) + timedelta(seconds=FRAME_LOG_S) if enabled else None
        return {"enabled": enabled, "until": until}, {"agent": name, "enabled": enabled}

    async def _set_log_level(self, call: AdminCall) -> Done:
        answer = daemon_calls.set_log_level(call)
        return answer, dict(answer)

    async def _reload(self, call: AdminCall) -> Done:
        check = f"cloud-server check --config {self._served.config_path}"
        one = await daemon_calls.reload(call, self._served.reload, check)
        return one.as_json(), {"generation": one.generation, "changed": one.changed}

    async def _create_join_token(self, call: AdminCall) -> Done:
        body = Body(call.body)
        agent, life = body.text("agent"), body.life("expires_s", MAX_LIFE) or DEFAULT_LIFE
        until = datetime.now(UTC) + life
        token = await self._served.administration.create_join_token(agent, life)
        return {"token": token, "until": until}, {"agent": agent, "until": until}

    async def _create_user_token(self, call: AdminCall) -> Done:
        body = Body(call.body)
        user, life = body.text("user"), body.life("expires_s", MAX_LIFE)
        until = datetime.now(UTC) + life if life is not None else None
        token = await self._served.administration.create_user_token(user, life)
        return {"token": token, "until": until}, {"user": user, "until": until}

    async def _revoke(self, call: AdminCall) -> Done:
        name, reason = call.values["name"], Body(call.body).text("reason", default="")[:MAX_REASON_CHARS]
        await self._served.administration.revoke_agent(name, reason)
        return self._known(name), {"agent": name, "text": reason}

    async def _forget(self, call: AdminCall) -> Done:
        name = call.values["name"]
        before = self._served.book.one(name)
        await self._served.administration.forget_agent(name)
        return before, {"agent": name}

    def _known(self, name: str) -> Json:
        shown = self._served.book.one(name)
        if shown is None:
            close = meant(close_name(name, self._served.agents.is_known))
            text = f"there is no agent named {name[:80]}{close}"
            raise AdminError(404, text, code=faults.AGENT_NOT_KNOWN.code, remedy="longline agents shows all")
        return shown


_HTTP = {
    faults.AGENT_NOT_JOINED: 404,
    faults.STATE_NOT_WRITABLE: 503,
    faults.STATE_UNREADABLE: 503,
    faults.SIGNER_FAILED: 503,
    faults.AUTHORITY_IS_YOURS: 409,
}
"""The HTTP statuses of the causes of what could not be done; all other causes are the request's, 400."""


def _who(call: AdminCall) -> Json:
    who = call.principal
    return {"kind": who.kind.label, "who": who.name, "proof": who.proof, "peer": call.peer}


def _named(call: AdminCall) -> Json:
    """Returns what stands in the path, by the names that records have for it."""
    return {"agent" if name == "name" else name: value for name, value in call.values.items()}


def _number(call: AdminCall, name: str, default: int) -> int:
    text = call.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise AdminError(400, f"{name}={text[:40]!r} in the query is no whole number")
    return int(text)
