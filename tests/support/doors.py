"""A door whose far side a test chooses, and the records of what went through it, in memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cloud_server.frontends.logins import RefusedLogins
from cloud_server.opens.door import Door, Routing
from cloud_server.opens.live import LiveOpens
from cloud_server.opens.policed import Opener
from cloud_server.opens.policy import Policy
from cloud_server.opens.recorded import OpenCounts
from cloud_server.opens.request import OpenRequest
from cloud_server.rights.engine import Decision
from cloud_server.routing.route import Route
from cloud_server.trust.authenticator import Authenticator, token_digest
from cloud_server.trust.caller import UNLIMITED, Caller, Scope
from cloud_server.trust.records import UserCertificate, UserRecord, UserToken
from tests.support.policies import everybody_may_all
from tunnel.aio.operate.audit import AuditUnavailable
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.principal import Principal, PrincipalKind

ANN = Caller(Principal(kind=PrincipalKind.USER, name="ann", proof="certificate:5f3a"))


class Records(list[dict[str, Any]]):
    """An audit log in memory; what is folded there is kept one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.fault = ""
        """Set, nothing is let in."""

    def record(self, event: str, **fields: object) -> None:
        self.append({"event": event, **fields})

    def record_folded(self, event: str, key: Hashable, **fields: object) -> None:
        self.append({"event": event, "folded": key, **fields})

    def admit(self) -> None:
        if self.fault:
            raise AuditUnavailable(self.fault)

    def of(self, *events: str) -> list[dict[str, Any]]:
        return [record for record in self if record["event"] in events]


class Nowhere:
    """Routes for those who bring their own."""

    def routes(self, authority: str) -> list[Route]:
        raise OpenRefused(f"no agent for {authority}", Code.UNKNOWN_AGENT)


class Nobody:
    """A policy that lets nobody to anything."""

    def decide(self, request: OpenRequest, route: Route) -> Decision:
        return Decision(allowed=False, rule="nobody")

    def forbids(self, request: OpenRequest, route: Route, resolved: str) -> Decision | None:
        return None

    def weighs_addresses(self, request: OpenRequest) -> bool:
        return False


class Tokens:
    """Users' tokens by their text; certificates are of an authority that records none."""

    recorded = False

    def __init__(self, tokens: Mapping[str, str], scope: Scope) -> None:
        now = datetime.now(UTC)
        self._by_hash = {
            digest: UserToken(user=user, sha256=digest, created=now, scope=scope)
            for token, user in tokens.items()
            for digest in [token_digest(token)]
        }
        self._users = {user: UserRecord(name=user, created=now, valid_from=now) for user in tokens.values()}

    def catch_up(self) -> None:
        """Nobody else changes them."""

    def user(self, name: str) -> UserRecord | None:
        return self._users.get(name)

    def user_token(self, sha256: str) -> UserToken | None:
        return self._by_hash.get(sha256)

    def user_certificate(self, serial: str) -> UserCertificate | None:
        raise AssertionError("nobody has records of certificates here")

    def used(self, key: str) -> None:
        """Nobody asks."""

    def forget(self) -> None:
        """Revoke all tokens."""
        self._by_hash.clear()


def who(tokens: Mapping[str, str] | None = None, scope: Scope = UNLIMITED) -> Authenticator:
    """Knows these tokens, all with one scope."""
    return Authenticator("longline", Tokens(tokens or {}, scope))


@dataclass
class Doors:
    """A door, and what stands around it."""

    local: Opener
    routing: Routing = field(default_factory=Nowhere)
    policy: Policy = field(default_factory=everybody_may_all)
    counts: OpenCounts | None = None
    records: Records = field(default_factory=Records)
    live: LiveOpens = field(default_factory=LiveOpens)

    def __post_init__(self) -> None:
        self.door = Door(self.live, self.routing, self.policy, self.records, self.local, self.counts)
        self.logins = RefusedLogins(self.records)


def asking(route: Route | None = None, **more: Any) -> OpenRequest:
    """A request of ann's over CONNECT."""
    asked = str(route.target) if route is not None else "box-7:80"
    given: dict[str, Any] = {"caller": ANN, "frontend": "connect", "peer": "192.0.2.1:5000", "asked": asked}
    return OpenRequest(route=route, **{**given, **more})
