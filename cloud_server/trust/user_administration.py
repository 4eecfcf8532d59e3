"""What an operator does to the users of a server: taking them in, handing out credentials, taking them away."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from cloud_server.trust.administration_failed import AdministrationFailed
from cloud_server.trust.authenticator import PROOF_DIGITS, Login, token_digest
from cloud_server.trust.caller import UNLIMITED, Scope
from cloud_server.trust.names import GROUP_NAME_RULE, USER_NAME_RULE, is_group_name, is_user_name
from cloud_server.trust.records import (
    BEARER,
    LOGIN,
    USER_CERTIFICATES,
    USER_TOKENS,
    USERS,
    UserCertificate,
    UserRecord,
    UserToken,
)
from cloud_server.trust.signer import CsrRefused, Signed, Signer, SignerFailed
from cloud_server.trust.store import Change, Conflict, Good, Record, Store, StoreUnavailable, Unreadable, value_of
from cloud_server.trust.users import Users
from tunnel.aio.identity.certificate import read_certificate
from tunnel.core.path.rate import TokenBuckets
from tunnel.core.wire.faults import (
    AUTHORITY_IS_YOURS,
    CERTIFICATES_TOO_FAST,
    RECORD_UNREADABLE,
    USER_NAME_INVALID,
    USER_REVOKED,
    USER_UNKNOWN,
)
from tunnel.core.wire.names import close_name, meant
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.spoken import spoken_s

TOKEN_LIFE = timedelta(days=90)
"""Of bearer tokens and logins, unless another is asked for."""
CERTIFICATE_LIFE = timedelta(hours=12)
"""A working day. With a login it is the longest; an operator may make one for a program that can fetch none."""
MAX_LIFE = timedelta(days=365)
TOKEN_BYTES = 32
"""Random bytes in a token."""
MAX_GROUPS = 64
CERTIFICATE = "certificate"
"""The kind of a credential that is one."""
MAX_FOREIGN_CHARS = 128
"""Of a name that an issuer gives; see `oidc.verifier.MAX_NAME_CHARS`."""
KEPT_OF_A_LOGIN = 32
"""Certificates: whoever asks for more has the oldest dropped. A machine that keeps them needs two a day."""
CERTIFICATES_PER_S, CERTIFICATES_AT_ONCE = 0.1, 20
"""For each user: signing is one process, which boxes need to join; a command that keeps nothing is slowed, not its
neighbours.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCredential:
    """A token or certificate of a user. Nothing of it is secret."""

    kind: str
    """`token`, `login` or `certificate`."""
    credential_id: str
    """What `token revoke` takes: of a certificate its serial."""
    created: datetime
    since: datetime
    """What decides whether it was made before its user was revoked: `created`, of a certificate that was got with a
    login that of the login."""
    created_by: str
    expires: datetime | None
    last_used: datetime | None
    """To the hour; None: never. What was got with a login counts as its use."""
    scope: Scope
    authority: str = ""
    """What signed a certificate, see `authority_id`; empty for a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedUser:
    """A user for lists."""

    name: str
    record: UserRecord | None
    """None: it cannot be read."""
    unreadable: str
    """Why its record cannot be read; empty when it can."""
    credentials: Sequence[ListedCredential]
    """Those that are good now, or will be once the user is taken in again: none of a revoked user's."""

    @property
    def principal(self) -> Principal:
        """Whom a policy knows the user as, without the groups that an identity provider may add."""
        return Principal(
            kind=PrincipalKind.USER, name=self.name, groups=self.record.groups if self.record is not None else ()
        )

    @property
    def until(self) -> datetime | None:
        """When the last of the credentials ends; None without any."""
        return max((one.expires for one in self.credentials if one.expires is not None), default=None)


class Access(NamedTuple):
    """Who may log in, in figures."""

    known: int
    """How many users there are, the revoked among them."""
    with_access: int
    """How many of them have something to log in with."""
    next: str | None
    """Whose last credential ends before anybody else's; None: nobody's does."""
    next_end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A certificate that was handed out."""

    user: str
    certificate_der: bytes
    ca_pem: bytes
    serial: str
    expires: datetime


class UserAdministration:
    """Changes and lists."""

    def __init__(self, store: Store, users: Users, signer: Signer | None) -> None:
        """`signer`: None with an authority of the user's own, which makes all certificates."""
        self._store = store
        self._users = users
        self._signer = signer
        self._pace = TokenBuckets(CERTIFICATES_PER_S, CERTIFICATES_AT_ONCE)
        """Of each user who asked for a certificate."""

    # Public - users

    def all(self) -> Sequence[ListedUser]:
        """All users, the revoked among them, by name."""
        self._store.catch_up()
        credentials = self._credentials()
        return [_listed(record, credentials[record.key]) for record in self._store.list(USERS)]

    def access(self) -> Access:
        """How many users may log in, and whose last credential ends next."""
        ends: list[tuple[datetime, str]] = []
        with_access = 0
        for user in (everyone := self.all()):
            with_access += bool(user.credentials)
            if user.until is not None:
                ends.append((user.until, user.name))
        until, name = min(ends, default=(None, None))
        return Access(known=len(everyone), with_access=with_access, next=name, next_end=until)

    def one(self, name: str) -> ListedUser:
        """One user.

        Raises:
            AdministrationFailed: there is none of the name.
        """
        self._store.catch_up()
        record = self._store.get(USERS, name)
        if record is None:
            raise self._unknown(name)
        return _listed(record, self._credentials()[name])

    async def add(self, name: str, groups: Sequence[str], by: str) -> UserRecord:
        """Take a user in, or give one that is there these groups, and no others. One that was revoked is a user again:
        what they had before stays worthless.

        Raises:
            AdministrationFailed: the name or a group cannot be used, or that cannot be kept.
        """
        if self._store.get(USERS, name) is None:
            check_user_name(name)
        for group in groups:
            if not is_group_name(group):
                text = f"{group[:80]!r} cannot name a group: {GROUP_NAME_RULE}"
                raise AdministrationFailed(text, USER_NAME_INVALID)
        if len(groups) > MAX_GROUPS:
            raise AdministrationFailed(f"a user is in {MAX_GROUPS} groups at most", USER_NAME_INVALID)
        now = datetime.now(UTC)
        made = UserRecord(name=name, groups=tuple(dict.fromkeys(groups)), created=now, created_by=by, valid_from=now)

        def change(found: Record[UserRecord] | None) -> UserRecord:
            known = value_of(found)
            if known is None:  # also for a record that cannot be read: what was handed out before is not trusted then
                return made
            if known.revoked is not None:
                return replace(known, groups=made.groups, valid_from=now, revoked=None, reason="")
            return replace(known, groups=made.groups)

        return await self._change(name, change)

    async def revoke(self, name: str, reason: str = "") -> UserRecord:
        """Block a user's name. What was handed out to it stays on record, so that whoever shows it is told why it is
        worth nothing, and is worth nothing for good: also when the user is taken in again. A name that only an issuer
        of ID tokens gives, such as `oidc:ann`, needs no record before.

        Raises:
            AdministrationFailed: there is none of the name, or that cannot be kept.
        """

        def change(found: Record[UserRecord] | None) -> UserRecord:
            known = value_of(found)
            if known is None:
                if found is None and not _is_foreign(name):
                    raise self._unknown(name)
                now = datetime.now(UTC)
                known = UserRecord(name=name, created=now, valid_from=now)
            return replace(known, revoked=datetime.now(UTC), reason=reason)

        return await self._change(name, change)

    # Public - credentials

    async def create_token(
        self, user: str, by: str, *, life: timedelta = TOKEN_LIFE, purpose: str = BEARER, scope: Scope = UNLIMITED
    ) -> tuple[str, UserToken]:
        """A token for a user, of which only the hash is kept.

        Raises:
            AdministrationFailed: there is no such user, or it is revoked, or that cannot be kept.
        """
        self._good(user)
        text = secrets.token_urlsafe(TOKEN_BYTES)
        now = datetime.now(UTC)
        token = UserToken(
            user=user, sha256=token_digest(text), created=now, expires=now + life, scope=scope, created_by=by,
            purpose=purpose,
        )  # fmt: skip
        await self._commit(Change(USER_TOKENS, token.sha256, token, expected=0))
        return text, token

    async def create_certificate(
        self, user: str, csr_der: bytes, by: str, life: timedelta = CERTIFICATE_LIFE
    ) -> Certified:
        """A certificate for a user's key, as an operator gives it.

        Raises:
            AdministrationFailed: as above, or the request is not in order, or nothing can be signed.
        """
        self._good(user)
        return await self._certify(user, csr_der, life, created_by=by)

    async def login(self, login: Login, csr_der: bytes) -> Certified:
        """A certificate for whoever has shown a login. It does not outlive the login.

        Raises:
            AdministrationFailed: as above, or they ask for too many.
        """
        token = login.token
        self._keep_pace(token.user)
        life = CERTIFICATE_LIFE
        if token.expires is not None:
            life = min(life, token.expires - datetime.now(UTC))
        by = str(login.caller.principal)
        return await self._certify(token.user, csr_der, life, created_by=by, login=token.sha256, scope=token.scope)

    # Internal

    async def _certify(self, user: str, csr_der: bytes, life: timedelta, **about: Any) -> Certified:
        if self._signer is None:
            text = "certificates come from your own authority ([tunnel] client_ca): make them there"
            raise AdministrationFailed(text, AUTHORITY_IS_YOURS)
        created = datetime.now(UTC)  # before it is signed: the user may be revoked meanwhile, and taken in again
        try:
            signed: Signed = await self._signer.sign_user(user, csr_der, life)
        except (CsrRefused, SignerFailed) as error:
            raise AdministrationFailed.of(error) from error
        made = read_certificate(signed.certificate_der)
        record = UserCertificate(
            serial=made.serial,
            user=user,
            created=created,
            expires=made.validity.not_after,
            authority=signed.authorities[0],
            **about,
        )
        await self._commit(Change(USER_CERTIFICATES, made.serial, record), *self._too_many_of(record.login))
        return Certified(
            user=user,
            certificate_der=signed.certificate_der,
            ca_pem=signed.ca_pem,
            serial=made.serial,
            expires=record.expires,
        )

    def _keep_pace(self, user: str) -> None:
        if wait_s := self._pace.take(user, time.monotonic()):
            text = f"{user} asks for certificates too fast: wait {spoken_s(wait_s)}"
            raise AdministrationFailed(text, CERTIFICATES_TOO_FAST)

    def _too_many_of(self, login: str) -> list[Change[Any]]:
        """What makes room for another certificate of a login."""
        if not login:
            return []
        mine = [one for one in _values(self._store.list(USER_CERTIFICATES)) if one.login == login]
        mine.sort(key=lambda one: one.created)
        extra = mine[: max(0, len(mine) - KEPT_OF_A_LOGIN + 1)]
        return [Change(USER_CERTIFICATES, one.serial, None) for one in extra]

    def _good(self, name: str) -> None:
        self._store.catch_up()
        found = self._store.get(USERS, name)
        if found is None:
            check_user_name(name)
            raise self._unknown(name)
        record = value_of(found)
        if record is None:
            text = f"what is kept of {name} cannot be read: cloud-server user add {name} writes it anew"
            raise AdministrationFailed(text, RECORD_UNREADABLE)
        if record.revoked is not None:
            text = f"{name} was revoked: cloud-server user add {name} takes them in again"
            raise AdministrationFailed(text, USER_REVOKED)

    def _unknown(self, name: str) -> AdministrationFailed:
        close = meant(close_name(name, lambda other: self._store.get(USERS, other) is not None))
        text = f"there is no user {name[:80]}{close}: cloud-server user add makes one"
        return AdministrationFailed(text, USER_UNKNOWN)

    async def _change(self, name: str, change: Callable[[Record[UserRecord] | None], UserRecord]) -> UserRecord:
        """Change a user's record, made anew should somebody else change it at the same time."""
        while True:
            self._store.catch_up()
            found = self._store.get(USERS, name)
            record = change(found)
            expected = found.version if found is not None else 0
            try:
                await self._commit(Change(USERS, name, record, expected=expected))
            except Conflict:
                continue
            return record

    async def _commit(self, *changes: Change[Any]) -> None:
        try:
            await self._store.commit(*changes)
        except StoreUnavailable as error:
            raise AdministrationFailed.of(error) from error

    def _credentials(self) -> defaultdict[str, list[ListedCredential]]:
        """All that are good, by the names of their users."""
        found: defaultdict[str, list[ListedCredential]] = defaultdict(list)
        now = datetime.now(UTC)
        for token in _values(self._store.list(USER_TOKENS)):
            if token.expires is None or now < token.expires:
                kind = LOGIN if token.purpose == LOGIN else "token"
                shown = self._shown(kind, token.sha256[:PROOF_DIGITS], token.sha256, token, token.created)
                found[token.user].append(shown)
        for one in _values(self._store.list(USER_CERTIFICATES)):
            login: UserToken | None = value_of(self._store.get(USER_TOKENS, one.login)) if one.login else None
            if now < one.expires and (login is not None or not one.login):
                since = login.created if login is not None else one.created
                found[one.user].append(self._shown(CERTIFICATE, one.serial, one.login or one.serial, one, since))
        return found

    def _shown(
        self, kind: str, shown: str, key: str, made: UserToken | UserCertificate, since: datetime
    ) -> ListedCredential:
        return ListedCredential(
            kind=kind,
            credential_id=shown,
            created=made.created,
            since=since,
            created_by=made.created_by,
            expires=made.expires,
            last_used=self._users.last_used(key),
            scope=made.scope,
            authority=made.authority if isinstance(made, UserCertificate) else "",
        )


def check_user_name(user: str) -> None:
    """Make sure that a text may name a user.

    Raises:
        AdministrationFailed: it may not.
    """
    if not is_user_name(user):
        raise AdministrationFailed(f"{user[:80]!r} cannot name a user: {USER_NAME_RULE}", USER_NAME_INVALID)


def _is_foreign(name: str) -> bool:
    """Whether a name can only be one of an issuer's: there is none of ours with a `:`."""
    return ":" in name and name.isprintable() and len(name) <= MAX_FOREIGN_CHARS


def _listed(record: Record[UserRecord], credentials: Sequence[ListedCredential]) -> ListedUser:
    known = value_of(record)
    good = [one for one in credentials if known is None or one.since >= known.valid_from]
    return ListedUser(
        name=record.key,
        record=known,
        unreadable=record.reason if isinstance(record, Unreadable) else "",
        credentials=[] if known is not None and known.revoked is not None else good,
    )


def _values(records: Any) -> Iterator[Any]:
    return (record.value for record in records if isinstance(record, Good))
