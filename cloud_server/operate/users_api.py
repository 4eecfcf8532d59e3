"""Serves the part of the admin API that is about users and their credentials."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloud_server.operate.limits import held_life
from cloud_server.rights.engine import Rights
from cloud_server.trust.administration import ListedToken
from cloud_server.trust.authenticator import Login
from cloud_server.trust.caller import Scope
from cloud_server.trust.records import BEARER, LOGIN
from cloud_server.trust.user_administration import (
    CERTIFICATE_LIFE,
    MAX_LIFE,
    TOKEN_LIFE,
    Certified,
    ListedCredential,
    ListedUser,
    UserAdministration,
)
from tunnel.aio.operate.admin import AdminCall
from tunnel.aio.operate.bodies import Body
from tunnel.core.wire import faults

MAX_REASON_CHARS = 200

Json = dict[str, Any]
Done = tuple[object, Json]


class UsersApi:
    """The handlers of calls about users. `Api` adds them, and records what they change."""

    def __init__(self, users: Callable[[], UserAdministration], rights: Callable[[], Rights]) -> None:
        """Takes functions that return the users and the rights of the moment. They are called
        for each call of the API.
        """
        self._find = users
        self._rights = rights

    @property
    def _users(self) -> UserAdministration:
        return self._find()

    async def all(self, _call: AdminCall) -> object:
        """Shows all users."""
        return {"users": [self._shown(one) for one in self._users.all()]}

    async def one(self, call: AdminCall) -> object:
        """Shows one user."""
        return self._shown(self._users.one(call.values["user"]))

    async def add(self, call: AdminCall) -> Done:
        """Takes a user in, or sets their groups."""
        body = Body(call.body)
        name, groups = body.text("name"), body.texts("groups")
        await self._users.add(name, groups, str(call.principal))
        return self._shown(self._users.one(name)), {"user": name, "groups": groups}

    async def revoke(self, call: AdminCall) -> Done:
        """Blocks a user, and keeps the reason that was given."""
        name, reason = call.values["user"], Body(call.body).text("reason", default="")[:MAX_REASON_CHARS]
        await self._users.revoke(name, reason)
        return self._shown(self._users.one(name)), {"user": name, "text": reason}

    async def create_token(self, call: AdminCall) -> Done:
        """Makes a bearer token or a login."""
        body = Body(call.body)
        user = body.text("user")
        life = held_life(call, user, body.life("expires_s", MAX_LIFE) or TOKEN_LIFE)
        purpose = body.choice_or("purpose", (BEARER, LOGIN), BEARER)
        text, token = await self._users.create_token(user, str(call.principal), life=life, purpose=purpose)
        about = {"user": user, "until": token.expires, "purpose": purpose}
        return {"token": text, "until": token.expires}, about

    async def create_certificate(self, call: AdminCall) -> Done:
        """Makes a certificate: for the owner of the login that was shown, else for the user who is named."""
        body = Body(call.body)
        csr_der = body.octets("csr")
        login = call.limits.get("login")
        if isinstance(login, Login):
            made = await self._users.login(login, csr_der)
        else:
            user = body.text("user")
            life = held_life(call, user, body.life("expires_s", MAX_LIFE) or CERTIFICATE_LIFE)
            made = await self._users.create_certificate(user, csr_der, str(call.principal), life)
        return _certified(made), {"user": made.user, "serial": made.serial, "until": made.expires}

    # Internal

    def _shown(self, user: ListedUser) -> Json:
        return user_as_json(user, self._rights().roles_of(user.principal))


def user_as_json(user: ListedUser, roles: Sequence[str]) -> Json:
    """Returns a user as the admin API shows them. `roles` are the names of the roles that the policy gives them."""
    record = user.record
    return {
        "name": user.name,
        "groups": list(record.groups) if record is not None else [],
        "roles": list(roles),
        "created": record.created if record is not None else None,
        "created_by": (record.created_by or None) if record is not None else None,
        "revoked": record.revoked if record is not None else None,
        "reason": (record.reason or None) if record is not None else None,
        "fault": user.unreadable or None,
        "until": user.until,
        "credentials": [_credential(one) for one in user.credentials],
    }


def token_as_json(token: ListedToken) -> Json:
    """Returns a token as the admin API shows it."""
    return {
        "id": token.token_id,
        "user": token.user or None,
        "purpose": token.purpose or None,
        "agent": token.agent or None,
        "count": token.count or None,
        "joined": list(token.names),
        "labels": dict(token.labels),
        "created": token.created,
        "created_by": token.created_by or None,
        "expires": token.expires,
        "last_used": token.used,
        "scope": scope_as_json(token.scope),
        "fault": token.unreadable or None,
    }


def scope_as_json(scope: Scope) -> Mapping[str, object]:
    """Returns a scope as the admin API shows it. A limit that is null is no limit."""
    limits = {name: getattr(scope, name) for name in ("frontends", "agents", "verbs", "targets")}
    return {name: sorted(limit) if limit is not None else None for name, limit in limits.items()}


def http_status(fault: faults.Fault) -> int:
    """Returns the HTTP status for the cause of a failure: 400 for all that are the request's fault."""
    return _HTTP.get(fault, 400)


_HTTP = {
    faults.AGENT_NOT_JOINED: 404,
    faults.USER_UNKNOWN: 404,
    faults.NO_SUCH_TOKEN: 404,
    faults.STATE_NOT_WRITABLE: 503,
    faults.STATE_UNREADABLE: 503,
    faults.SIGNER_FAILED: 503,
    faults.AUTHORITY_IS_YOURS: 409,
    faults.USER_REVOKED: 409,
    faults.CERTIFICATES_TOO_FAST: 429,
}


def _credential(one: ListedCredential) -> Json:
    return {
        "kind": one.kind,
        "id": one.credential_id,
        "created": one.created,
        "created_by": one.created_by or None,
        "expires": one.expires,
        "last_used": one.last_used,
        "scope": scope_as_json(one.scope),
    }


def _certified(made: Certified) -> Json:
    return {
        "certificate": ssl.DER_cert_to_PEM_cert(made.certificate_der),
        "ca": made.ca_pem.decode(),
        "user": made.user,
        "serial": made.serial,
        "until": made.expires,
    }
