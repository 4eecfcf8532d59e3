"""Tells who somebody is: from a certificate, a token, a unix socket, or the port that was asked.

Nothing else does that.

Every method is called in the event loop for each connection or request, and takes microseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from cloud_server.trust.caller import UNLIMITED, Caller, Shown, ShownKind
from cloud_server.trust.records import LOGIN, UserCertificate, UserRecord, UserToken
from tunnel.aio.identity.spiffe import IdentityUnclear, split_uri
from tunnel.aio.identity.validity import date
from tunnel.aio.sockets.conn import TlsPeer
from tunnel.core.wire.faults import (
    CREDENTIAL_EXPIRED,
    CREDENTIAL_MISSING,
    CREDENTIAL_OUTDATED,
    CREDENTIAL_UNKNOWN,
    LOGIN_ONLY,
    USER_REVOKED,
    FaultError,
)
from tunnel.core.wire.host_port import split_host_port
from tunnel.core.wire.principal import Principal, PrincipalKind

KUBE_APISERVER = "kube-apiserver"
"""The name of whoever speaks konnectivity's protocol on the unix socket: kube-apiserver is its only user."""
PROOF_DIGITS = 12
"""How many digits of a token's hash its proof and lists have: enough to tell tokens apart, too few to be of use."""
CERTIFICATE, TOKEN, ISSUED_BY = "certificate:", "token:", "oidc:"
"""The beginnings of the proofs of a certificate, of a token of ours, and of an ID token."""
ANOTHER = "ask for another kubeconfig (cloud-server user kubeconfig)"
"""What the owner of a credential that is worth nothing is told to do."""


NEEDED = "a client certificate of a user or a bearer token"


class LoginRefused(FaultError):
    """A credential was shown that is worth nothing. The text tells whoever showed it why, and what to do."""

    default_fault = CREDENTIAL_UNKNOWN


class Login(NamedTuple):
    """A user who showed a login, with the record of it."""

    caller: Caller
    token: UserToken


class Identified(NamedTuple):
    """What a verified ID token says of its owner."""

    name: str
    groups: tuple[str, ...]
    proof: str
    since: datetime
    """When the token was made."""
    until: datetime


class IdTokens(Protocol):
    """An issuer whose ID tokens are taken."""

    def verify(self, text: str, address: str) -> Identified:
        """Whose token it is; `address` is that of the peer who shows it, without its port.

        Raises:
            LoginRefused: it is worth nothing here.
        """
        ...

    async def ready(self, text: str) -> None:
        """Waits until the key that a token names is known, or will not be known soon."""
        ...


class Credentials(Protocol):
    """The users, and what was handed out to them."""

    recorded: bool
    """Whether each user and each certificate has a record. It is False where certificates are of the user's own
    authority."""

    def catch_up(self) -> None:
        """Reads what other processes have changed until now. The authenticator calls it before it looks at somebody."""
        ...

    def user(self, name: str) -> UserRecord | None:
        """Returns the user of this name; None when there is none.

        Raises:
            LoginRefused: the record cannot be read now.
        """
        ...

    def user_token(self, sha256: str) -> UserToken | None:
        """Returns the token with this hash; None when there is none, or none any more."""
        ...

    def user_certificate(self, serial: str) -> UserCertificate | None:
        """Returns the certificate with this serial; None when there is none, or none any more."""
        ...

    def used(self, key: str) -> None:
        """Notes that a credential was good just now. `key` is the hash of a token, or the serial of a certificate."""
        ...


class Authenticator:
    """The maker of every Caller."""

    def __init__(self, trust_domain: str, credentials: Credentials) -> None:
        """Looks up users and what they hold in `credentials`.

        A certificate that names another `trust_domain` is nobody's here.
        """
        self._trust_domain = trust_domain
        self._credentials = credentials
        self.id_tokens: IdTokens | None = None
        """The issuer whose ID tokens are taken; None when there is none."""
        self.login_document: Mapping[str, object] | None = None
        """What `longline login` is told of that issuer; None when there is none."""

    @property
    def recorded(self) -> bool:
        """Returns whether each user and each certificate has a record; see `Credentials`."""
        return self._credentials.recorded

    def by_certificate(
        self, uri: str | None, serial: str, until: datetime | None = None, since: datetime | None = None
    ) -> Caller | None:
        """Returns the user of a client certificate that TLS has verified; None when the certificate is not a user's.

        Args:
            uri: the one spiffe:// name in it; None without a certificate.
            serial: its serial number, in hexadecimal of either case; empty when it is not known.
            until: when it ends; None when that is not known.
            since: from when on it is good; None when that is not known.

        Raises:
            LoginRefused: it is a user's, and is worth nothing any more.
        """
        name = self._user_of(uri)
        if name is None:
            return None
        self._credentials.catch_up()
        serial = serial.lower().lstrip("0")
        scope, made, key = UNLIMITED, since, serial
        if self._credentials.recorded:
            record, made = self._recorded(name, serial)
            scope, key = record.scope, record.login or serial
        groups = self._standing(name, made, known=self._credentials.recorded)
        _check_end(until, "certificate")  # the connection may be older than that
        self._credentials.used(key)
        principal = Principal(kind=PrincipalKind.USER, name=name, groups=groups, proof=certificate_proof(serial))
        return Caller(principal, until, scope, shown=Shown(ShownKind.CERTIFICATE, serial, made))

    def by_token(self, text: str | None, peer: str = "") -> Caller | None:
        """The user whom a bearer token or proxy password stands for; None where none was given.

        Args:
            text: the token.
            peer: the address and port that it came from; empty when that is not known, which is one peer then.

        Raises:
            LoginRefused: it is worth nothing here.
        """
        if not text:
            return None
        if self.id_tokens is not None and is_id_token(text):
            return self._of_id_token(self.id_tokens.verify(text, split_host_port(peer)[0] or peer))
        self._credentials.catch_up()
        # Looked up by hash: how long that takes says nothing of the token.
        token = self._credentials.user_token(token_digest(text))
        if token is None:
            text = "the token is not known here: it was revoked, or is another server's; ask for another"
            raise LoginRefused(text, CREDENTIAL_UNKNOWN)
        if token.purpose == LOGIN:
            text = "this is a login, which longline trades for certificates: it opens nothing itself"
            raise LoginRefused(text, LOGIN_ONLY)
        return self._of_token(token)

    async def ready_for(self, token: str | None) -> None:
        """Waits until the key of an ID token is known, if it may be a new one; some seconds at most.

        The caller must do so before it asks whose the token is. For other tokens it returns at once.
        """
        if self.id_tokens is not None and token and is_id_token(token):
            await self.id_tokens.ready(token)

    def by_either(self, certificate: TlsPeer, token: str | None, peer: str = "") -> Caller:
        """Whoever has a certificate of a user, else a token. A token also stands for one whose certificate is worth
        nothing any more. `peer`: see `by_token`.

        Raises:
            LoginRefused: neither is worth anything, or none was shown.
        """
        refused = LoginRefused(f"{NEEDED} is needed", CREDENTIAL_MISSING)
        try:
            if (caller := self.by_certificate(*certificate)) is not None:
                return caller
        except LoginRefused as error:
            refused = error
        if (caller := self.by_token(token, peer)) is not None:
            return caller
        raise refused

    def by_login(self, text: str | None) -> Login | None:
        """Returns the user of a login, to whom a certificate may be given; None when no login was shown.

        Raises:
            LoginRefused: the login is worth nothing any more.
        """
        if not text:
            return None
        self._credentials.catch_up()
        token = self._credentials.user_token(token_digest(text))
        return Login(self._of_token(token), token) if token is not None and token.purpose == LOGIN else None

    def is_user(self, certificate: TlsPeer) -> bool:
        """Returns whether `by_certificate` returns a user for a certificate."""
        try:
            return self.by_certificate(*certificate) is not None
        except LoginRefused:
            return False

    def again(self, caller: Caller) -> Caller:
        """Returns a caller by what is known now: the same object when nothing has changed, else one with the groups of
        now.

        It is called for each thing that is begun for a caller, and for what they hold when a record changes.

        Raises:
            LoginRefused: what they showed is worth nothing any more.
        """
        principal, shown = caller.principal, caller.shown
        if principal.kind is not PrincipalKind.USER:
            return caller
        if caller.by is not None:
            shower = self.again(replace(caller, principal=caller.by, by=None)).principal
            self._standing(principal.name, None, known=False)
            return caller if shower == caller.by else replace(caller, by=shower)
        assert shown is not None  # of every user, see _of_* and by_certificate
        self._credentials.catch_up()
        groups = self._groups_of(principal.name, shown)
        _check_end(caller.until, shown.kind.value)
        return caller if groups == principal.groups else replace(caller, principal=replace(principal, groups=groups))

    def by_unix_peer(self, uid: int, pid: int, *, konnectivity: bool) -> Caller:
        """Returns the caller that opened a unix socket of ours. The mode of the socket decides who can.

        Args:
            uid: as the kernel tells it (SO_PEERCRED).
            pid: as the kernel tells it; 0 for a process that cannot be seen from here, as in another container.
            konnectivity: whether the caller speaks konnectivity's protocol, not CONNECT.
        """
        proof = f"uid:{uid} pid:{pid}" if pid else f"uid:{uid}"
        if konnectivity:
            return Caller(Principal(kind=PrincipalKind.KUBE_APISERVER, name=KUBE_APISERVER, proof=proof))
        return Caller(Principal(kind=PrincipalKind.LOCAL_PROCESS, name=f"uid:{uid}", proof=proof))

    def static_forward(self, listen: str) -> Caller:
        """Returns the caller that connects to a port that the configuration forwards: nobody asks who that is."""
        return Caller(Principal(kind=PrincipalKind.STATIC_FORWARD, name=listen))

    def server(self, name: str) -> Caller:
        """Returns this server itself as a caller, on nobody's behalf; `name` says which part of it."""
        return Caller(Principal(kind=PrincipalKind.SERVER, name=name))

    def agent(self, name: str, serial: str) -> Caller:
        """Returns a box that opens streams itself on a session. Its certificate was checked when the session began.

        `serial` is that of its certificate; empty when it is not known.
        """
        return Caller(Principal(kind=PrincipalKind.AGENT, name=name, proof=certificate_proof(serial.lower())))

    def acted_as(self, caller: Caller, name: str, groups: tuple[str, ...]) -> Caller:
        """Returns the user as whom a caller acts. Whether the caller may do so is checked before.

        The user may do no more than the caller's credential is good for.

        The groups are those that were asked for, as in a Kubernetes API server, not those that the user has.

        Raises:
            LoginRefused: the user was revoked, or the record cannot be read now.
        """
        self._standing(name, None, known=False)
        proof = f"{caller.principal} {caller.principal.proof}"
        principal = Principal(kind=PrincipalKind.USER, name=name, groups=groups, proof=proof)
        return replace(caller, principal=principal, by=caller.principal)

    # Internal

    def _user_of(self, uri: str | None) -> str | None:
        if uri is None:
            return None
        try:
            role, name = split_uri(uri, self._trust_domain)
        except IdentityUnclear:
            return None
        return name if role == "user" else None

    def _groups_of(self, name: str, shown: Shown) -> tuple[str, ...]:
        """The groups of now of somebody who showed something before.

        Raises:
            LoginRefused: that is worth nothing any more.
        """
        if shown.kind is ShownKind.ID_TOKEN:
            if self.id_tokens is None:
                raise LoginRefused("ID tokens are not taken here any more", CREDENTIAL_UNKNOWN)
            return self._with_issued(name, shown)
        known = shown.kind is ShownKind.TOKEN or self._credentials.recorded
        if known and not self._is_kept(shown):
            raise LoginRefused(f"the {shown.kind.value} that {name} showed was revoked", CREDENTIAL_UNKNOWN)
        return self._standing(name, shown.made, known=known)

    def _with_issued(self, name: str, shown: Shown) -> tuple[str, ...]:
        """The groups of an ID token's owner: those of ours, for we may know them too, and those of the issuer."""
        ours = self._standing(name, shown.made, known=False)
        return tuple(dict.fromkeys((*ours, *shown.issued_groups)))

    def _is_kept(self, shown: Shown) -> bool:
        """Returns whether a credential is on record, and with it the login that it was got with, if any."""
        if shown.kind is ShownKind.TOKEN:
            return self._credentials.user_token(shown.key) is not None
        record = self._credentials.user_certificate(shown.key)
        return record is not None and (not record.login or self._credentials.user_token(record.login) is not None)

    def _recorded(self, name: str, serial: str) -> tuple[UserCertificate, datetime]:
        """The record of a certificate, and when that was made by which it stands or falls.

        Of one that was got with a login that is when the login was made: signing takes a moment, in which the user may
        be revoked and taken in again, and what comes of an old login must not look newer than that.
        """
        record = self._credentials.user_certificate(serial) if serial else None
        if record is None or record.user != name:
            raise LoginRefused(f"the certificate has no record here: {ANOTHER}", CREDENTIAL_UNKNOWN)
        if not record.login:
            return record, record.created
        login = self._credentials.user_token(record.login)
        if login is None:
            raise LoginRefused(f"the login of the certificate was revoked: {ANOTHER}", CREDENTIAL_UNKNOWN)
        return record, login.created

    def _of_token(self, token: UserToken) -> Caller:
        groups = self._standing(token.user, token.created, known=True)
        _check_end(token.expires, "token")
        self._credentials.used(token.sha256)
        proof = token_proof(token.sha256)
        principal = Principal(kind=PrincipalKind.USER, name=token.user, groups=groups, proof=proof)
        return Caller(principal, token.expires, token.scope, shown=Shown(ShownKind.TOKEN, token.sha256, token.created))

    def _of_id_token(self, told: Identified) -> Caller:
        """Returns the user of an ID token.

        When we have a record of the user, they are in our groups too, and may be revoked.
        """
        shown = Shown(ShownKind.ID_TOKEN, told.proof, told.since, told.groups)
        groups = self._with_issued(told.name, shown)
        principal = Principal(kind=PrincipalKind.USER, name=told.name, groups=groups, proof=told.proof)
        return Caller(principal, told.until, shown=shown)

    def _standing(self, name: str, made: datetime | None, *, known: bool) -> tuple[str, ...]:
        """Returns the groups of a user whose credential was made at a moment; None when that is not known.

        `known` says that there must be such a user.
        """
        user = self._credentials.user(name)
        if user is None:
            if known:
                raise LoginRefused(f"there is no user {name} here any more", CREDENTIAL_UNKNOWN)
            return ()
        if user.revoked is not None:
            why = f" ({user.reason})" if user.reason else ""
            raise LoginRefused(f"{name} was revoked at {date(user.revoked)}{why}", USER_REVOKED)
        if made is not None and made < user.valid_from:
            text = f"only what was made after {date(user.valid_from)} counts for {name}: {ANOTHER}"
            raise LoginRefused(text, CREDENTIAL_OUTDATED)
        return user.groups


def _check_end(until: datetime | None, what: str) -> None:
    if until is not None and datetime.now(UTC) >= until:
        raise LoginRefused(f"the {what} expired at {date(until)}: {ANOTHER}", CREDENTIAL_EXPIRED)


def is_id_token(text: str) -> bool:
    """Returns whether a text has the form of a signed token (RFC 7515 3.1). No token of ours has a dot in it."""
    return text.count(".") == 2


def token_digest(text: str) -> str:
    """Returns the SHA-256 under which a token is kept, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def token_proof(sha256: str) -> str:
    """Returns the proof in the Caller of a token with this hash."""
    return f"{TOKEN}{sha256[:PROOF_DIGITS]}"


def certificate_proof(serial: str) -> str:
    """Returns the proof in the Caller of a certificate with this serial; empty when the serial is not known."""
    return f"{CERTIFICATE}{serial}" if serial else ""
