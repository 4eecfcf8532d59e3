"""Answers what is asked of a running server, on its admin socket and at the fleet API's listener: see openapi.json."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cloud_server.agents.agents import Agents
from cloud_server.opens.live import LiveOpens
from cloud_server.opens.policy import DoorPolicy
from cloud_server.operate import open_list
from cloud_server.operate.agent_book import AgentBook
from cloud_server.operate.events import EventBook
from cloud_server.operate.limits import check_makes_credentials, scope_of
from cloud_server.operate.status import Status
from cloud_server.operate.users_api import UsersApi, http_status, scope_as_json, token_as_json
from cloud_server.rights.ask import Ask, Verb
from cloud_server.rights.engine import Decision
from cloud_server.rights.explain import AskUnclear, build_ask, explain
from cloud_server.rights.scopes import SCOPE_RULE
from cloud_server.trust.administration import Administration
from cloud_server.trust.administration_failed import AdministrationFailed
from cloud_server.trust.tokens import DEFAULT_LIFE
from cloud_server.trust.user_administration import MAX_LIFE
from tunnel.aio.operate import daemon_calls
from tunnel.aio.operate.admin import AdminCall, AdminError, Handler, Listing, Routes
from tunnel.aio.operate.audit import Audit
from tunnel.aio.operate.bodies import Body
from tunnel.aio.operate.desired_state import Reloaded
from tunnel.core.wire import faults
from tunnel.core.wire.names import close_name, meant
from tunnel.core.wire.principal import Principal, PrincipalKind

FRAME_LOG_S = 600.0
"""Seconds after which an agent's frames are logged no more: a line for each is much, and whoever looks may forget it.
"""
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
    reload_policy: Callable[[str], Awaitable[Reloaded]]
    """Reads the policy again, and is told why it does."""
    policy: DoorPolicy
    config_path: str
    audit: Audit


class Api:
    """The admin API: it adds its routes once, and answers them."""

    def __init__(self, served: Served, routes: Routes) -> None:
        """Adds the routes of the API to `routes`.

        The policy is asked for `observe` before anything is shown, and for `administer` before anything is changed;
        each change is recorded with who asked for it.
        """
        self._served = served
        users = UsersApi(lambda: served.administration.users, lambda: served.policy.rights)
        for method, path, handler in (
            ("GET", "status", self._status),
            ("GET", "agents", self._agents),
            ("GET", "agents/{name}", self._agent),
            ("GET", "opens", self._opens),
            ("GET", "events", self._events),
            ("GET", "users", users.all),
            ("GET", "users/{user}", users.one),
            ("GET", "tokens", self._tokens),
        ):
            routes.add(method, path, self._read(path, handler))
        routes.add("GET", "whoami", self._whoami)  # of oneself, and so for everybody
        routes.add("POST", "policy/explain", self._read("policy/explain", self._explain, self._explaining))
        for method, path, action, change in (
            ("DELETE", "opens/{id}", "kill_open", self._kill),
            ("PUT", "agents/{name}/frame-log", "set_frame_log", self._set_frame_log),
            ("PUT", "log-level", "set_log_level", self._set_log_level),
            ("POST", "reload", "reload", self._reload),
            ("POST", "users", "add_user", users.add),
            ("POST", "users/{user}/revoke", "revoke_user", users.revoke),
            ("DELETE", "tokens/{id}", "revoke_token", self._revoke_token),
            ("PUT", "agents/{name}/labels", "label_agent", self._label),
            ("POST", "agents/{name}/revoke", "revoke_agent", self._revoke),
            ("POST", "agents/{name}/forget", "forget_agent", self._forget),
        ):
            routes.add(method, path, self._recorded(action, change))
        for path, action, change, by_login in (
            ("join-tokens", "create_join_token", self._create_join_token, False),
            ("user-tokens", "create_user_token", users.create_token, False),
            ("certificates", "create_certificate", users.create_certificate, True),
        ):
            routes.add("POST", path, self._recorded(action, change, makes_credentials=True, by_login=by_login))

    # Internal - records

    def _recorded(
        self, action: str, change: Change, *, makes_credentials: bool = False, by_login: bool = False
    ) -> Handler:
        """Records who did what, whether or not it succeeded: what was done one by one, what was not folded, for whoever
        has any login, and no right, can fail as often as they like.

        `makes_credentials`: a credential with a scope is not good for it. `by_login`: whoever shows a login does it for
        themselves, and needs no right; the scope of the login stays.
        """

        async def handle(call: AdminCall) -> object:
            try:
                if not (by_login and "login" in call.limits):
                    self._check(call, Verb.ADMINISTER)
                    if makes_credentials:
                        check_makes_credentials(call)
                answer, about = await change(call)
            except AdministrationFailed as error:
                failed = AdminError(http_status(error.fault), error.text, code=error.fault.code)
                self._record_failed(call, action, failed)
                raise failed from error
            except AdminError as error:
                self._record_failed(call, action, error)
                raise
            self._served.audit.record("admin", **_who(call), action=action, **about, done=True)
            return answer

        return handle

    def _record_failed(self, call: AdminCall, action: str, error: AdminError) -> None:
        code, key = error.code or None, (call.principal.kind, call.principal.name, action, error.code)
        fields = {**_named(call), "done": False, "code": code, "reason": error.text}
        self._served.audit.record_folded("admin", key, **_who(call), action=action, **fields)

    def _read(
        self, path: str, handler: Handler, needs: Callable[[AdminCall], Verb | None] = lambda _call: Verb.OBSERVE
    ) -> Handler:
        """Records who reads. `needs`: says which verb a call takes; None: everybody may."""

        async def handle(call: AdminCall) -> object:
            verb = needs(call)
            audit = self._served.audit
            key, about = (call.principal.name, path), {"resource": f"longline/{path}", **_named(call)}
            try:
                if verb is not None:
                    self._check(call, verb)
            except AdminError as error:
                audit.record_folded("refused", key, **_who(call), **about, code=error.code, text=error.text)
                raise
            if call.principal.kind is not PrincipalKind.LOCAL_PROCESS:  # who may read it there may read the log, too
                audit.record_folded("read", key, **_who(call), **about)
            try:
                return await handler(call)
            except AdministrationFailed as error:
                raise AdminError(http_status(error.fault), error.text, code=error.fault.code) from error

        return handle

    # Internal - rights

    def _check(self, call: AdminCall, verb: Verb) -> None:
        """Makes sure that the policy allows a call.

        Raises:
            AdminError: 403, it does not.
        """
        who, decision = call.principal, self._decide(call, verb)
        if decision.allowed:
            return
        fault = faults.OUT_OF_SCOPE if decision.rule == SCOPE_RULE else faults.NOT_ALLOWED
        reason = f": {decision.reason}" if decision.reason else ""
        text = f"{who.name} may not {verb} this server, by rule {decision.rule}{reason}"
        remedy = (
            f"cloud-server policy explain --user {who.name} --verb {verb} shows why; a rule of the policy can allow it"
        )
        raise AdminError(403, text, code=fault.code, remedy=remedy)

    def _decide(self, call: AdminCall, verb: Verb) -> Decision:
        who = call.principal
        ask = Ask(principal=who, scope=scope_of(call), frontend=_frontend(who), verb=verb)
        return self._served.policy.rights.decide(ask)

    def _labels_for(self, call: AdminCall, agent: str) -> Mapping[str, str]:
        """The labels of an agent; none, as if there was no such agent, for whoever may not see it."""
        policy, who = self._served.policy, call.principal
        labels = policy.labels_of(agent)
        if self._decide(call, Verb.OBSERVE).allowed:
            return labels
        visible = policy.rights.agents_visible(who, scope_of(call), _frontend(who))
        return labels if visible is None or visible(agent, labels) else {}

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
            "scope": scope_as_json(scope_of(call)),
        }

    def _explaining(self, call: AdminCall) -> Verb | None:
        """The verb that it takes to have rights explained: none for one's own; for others as for a review of them."""
        who, body = call.principal, Body(call.body)
        is_own = who.kind is PrincipalKind.USER and body.text("user", default="") == who.name
        return None if is_own and set(body.texts("groups")) <= set(who.groups) else Verb.ADMINISTER

    async def _explain(self, call: AdminCall) -> object:
        body = Body(call.body)
        agent = body.text("agent", default="")
        try:
            ask = build_ask(
                user=body.text("user", default=""),
                groups=body.texts("groups"),
                frontend=body.text("frontend", default=""),
                verb=body.text("verb", default=""),
                agent=agent,
                labels=body.texts_by_name("labels") or dict(self._labels_for(call, agent)),
                target=body.text("target", default=""),
                unit=body.text("unit", default=""),
                whom=body.text("whom", default=""),
            )
        except AskUnclear as error:
            raise AdminError(400, str(error), code=faults.ASK_UNCLEAR.code) from error
        return explain(self._served.policy.rights, ask).as_json()

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
        check = f"cloud-server policy check --config {self._served.config_path}"
        policy = await daemon_calls.reload(call, self._served.reload_policy, check, faults.POLICY_INVALID)
        about = {"generation": one.generation, "changed": one.changed, "policy_changed": policy.changed}
        return {**one.as_json(), "policy": policy.as_json()}, about

    async def _create_join_token(self, call: AdminCall) -> Done:
        body = Body(call.body)
        agent, life = body.text("agent"), body.life("expires_s", MAX_LIFE) or DEFAULT_LIFE
        count, labels = body.count("count", 1), body.texts_by_name("labels")
        until = datetime.now(UTC) + life
        token = await self._served.administration.create_join_token(
            agent, str(call.principal), life, count=count, labels=labels
        )
        return {"token": token, "until": until}, {"agent": agent, "until": until, "count": count}

    async def _tokens(self, _call: AdminCall) -> object:
        return {"tokens": [token_as_json(one) for one in self._served.administration.tokens()]}

    async def _revoke_token(self, call: AdminCall) -> Done:
        token_id = call.values["id"]
        await self._served.administration.revoke_tokens(token_id=token_id)
        return {"id": token_id, "revoked": True}, {"id": token_id}

    async def _label(self, call: AdminCall) -> Done:
        name, labels = call.values["name"], Body(call.body).texts_by_name("labels", removal=True)
        kept = await self._served.administration.label_agent(name, labels)
        return {"labels": kept}, {"agent": name, "labels": kept}

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


def _who(call: AdminCall) -> Json:
    who = call.principal
    return {"kind": who.kind.label, "who": who.name, "proof": who.proof, "peer": call.peer}


def _frontend(who: Principal) -> str:
    return "admin" if who.kind is PrincipalKind.LOCAL_PROCESS else "fleet"


def _named(call: AdminCall) -> Json:
    """Returns what stands in the path, by the names that records have for it."""
    return {"agent" if name == "name" else name: value for name, value in call.values.items()}


def _number(call: AdminCall, name: str, default: int) -> int:
    text = call.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise AdminError(400, f"{name}={text[:40]!r} in the query is no whole number")
    return int(text)
