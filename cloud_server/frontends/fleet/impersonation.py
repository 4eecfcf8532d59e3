"""Decides for `kubectl --as` who acts as whom, by the headers of a request and the policy."""

from __future__ import annotations

from cloud_server.frontends.fleet.actions import Action
from cloud_server.frontends.fleet.kubelet import FRONTEND
from cloud_server.frontends.fleet.refusals import forbidden
from cloud_server.opens.policy import DoorPolicy
from cloud_server.rights.engine import Decision
from cloud_server.trust.authenticator import Authenticator
from cloud_server.trust.caller import Caller
from tunnel.aio.http.http1 import Headers
from tunnel.kubeapi.status import ApiError

MAX_GROUPS = 32
"""The most groups of one request; the policy is asked about each."""
MAX_NAME_CHARS = 253
"""The most characters of a user's or group's name, as long as the longest name of an object of Kubernetes; they stand
in records."""
_PREFIX = "impersonate-"
_USER, _GROUP = "impersonate-user", "impersonate-group"
_KINDS = {_USER: "users", _GROUP: "groups", "impersonate-uid": "uids"}


def acting(policy: DoorPolicy, authenticator: Authenticator, caller: Caller, headers: Headers) -> Caller:
    """Returns as whom a request is made: mostly the caller itself.

    Raises:
        ApiError: 400, the headers make no sense; 422, a name is too long; 403, the caller may not.
        LoginRefused: the one who is meant was revoked.
    """
    given = [(name, value) for name, value in headers if name.startswith(_PREFIX) and value]
    if not given:
        return caller
    for header, value in given:
        if header not in (_USER, _GROUP):
            _refuse(
                caller, header, value, Decision(False, "fleet API", "users and groups are all that can be acted as")
            )
    users = [value for header, value in given if header == _USER]
    groups = tuple(value for header, value in given if header == _GROUP)
    if len(groups) > MAX_GROUPS:
        raise ApiError(400, f"more than {MAX_GROUPS} groups to act as")
    if any(len(value) > MAX_NAME_CHARS for _, value in given):
        raise ApiError(422, f"a name of more than {MAX_NAME_CHARS} characters to act as")
    for header, value in given:
        name, groups_of_one = (value, ()) if header == _USER else ("", (value,))
        decision = policy.acting(caller.principal, caller.scope, FRONTEND, name, groups_of_one)
        if not decision.allowed:
            _refuse(caller, header, value, decision)
    if len(users) != 1:
        raise ApiError(400, "one user must be named to act as, with or without groups")
    return authenticator.acted_as(caller, users[0], groups)


def check_as_oneself(caller: Caller, headers: Headers) -> None:
    """Makes sure that nobody acts as somebody else where that is not offered.

    If the headers were ignored, `--as=NOBODY` would have all rights of its user.

    Raises:
        ApiError: 403, the headers name somebody to act as.
    """
    for header, value in headers:
        if header.startswith(_PREFIX) and value:
            _refuse(caller, header, value, Decision(False, "admin API", "it is asked by everybody as oneself"))


# Internal


def _refuse(caller: Caller, header: str, value: str, decision: Decision) -> None:
    kind = _KINDS.get(header, "userextras")
    raise forbidden(caller.name, Action(verb="impersonate", resource=kind, name=value[:MAX_NAME_CHARS]), decision)
