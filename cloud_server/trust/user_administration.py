"""Does what an operator wants of the users of a server: takes them in, hands out credentials, and takes them away."""

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
from cloud_server.trust.signer import CsrRefused, Signed, Signer
from cloud_server.trust.signing_link import SignerFailed
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
"""The life of bearer tokens and logins, unless another one is asked for."""
CERTIFICATE_LIFE = timedelta(hours=12)
"""The life of a certificate, a working day. For one that a login gets it is the longest; an operator may make a longer
one for a program that can fetch none."""
MAX_LIFE = timedelta(days=365)
TOKEN_BYTES = 32
"""The number of random bytes in a token."""
MAX_GROUPS = 64
CERTIFICATE = "certificate"
"""The kind of a credential that is a certificate."""
MAX_FOREIGN_CHARS = 128
"""The most characters of a name that an issuer gives; see `oidc.verifier.MAX_NAME_CHARS`."""
KEPT_OF_A_LOGIN = 32
"""The most certificates that are kept of one login: when it asks for more, the oldest is dropped. A machine that keeps
its certificates needs two a day."""
CERTIFICATES_PER_S, CERTIFICATES_AT_ONCE = 0.1, 20
"""The certificates that each user may get in a second, and at once. One process signs for all, and boxes need it to
join: a command that keeps nothing is slowed down, and its neighbors are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCredential:
    """A token or certificate of a user. Nothing of it is secret."""

    kind: str
    """The kind: `token`, `login` or `certificate`."""
    credential_id: str
    """What `token revoke` takes: of a certificate its serial."""
    created: datetime
    since: datetime
    """What decides whether it was made before its user was revoked: `created`, of a certificate that was got with a
    login that of the login."""
    created_by: str
    expires: datetime | None
    last_used: datetime | None
    """When it was shown last, to the hour; None when it never was. A certificate that was got with a login counts as a
    use of the login."""
    scope: Scope
    authority: str = ""
    """The authority that signed a certificate, see `authority_id`; empty for a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedUser:
    """A user with their credentials, for lists."""

    name: str
    record: UserRecord | None
    """The record of the user; None when it cannot be read."""
    unreadable: str
    """The reason why the record cannot be read; empty when it can."""
    credentials: Sequence[ListedCredential]
    """The credentials that are good now; when the record cannot be read, those that have not expired. Empty for a
    revoked user."""

    @property
    def principal(self) -> Principal:
        """Returns the principal that a policy knows the user as, without groups that an identity provider may add."""
        return Principal(
            kind=PrincipalKind.USER, name=self.name, groups=self.record.groups if self.record is not None else ()
        )

    @property
    def until(self) -> datetime | None:
        """Returns when the last of the credentials ends; None when there is none that ends."""
        return max((one.expires for one in self.credentials if one.expires is not None), default=None)


class Access(NamedTuple):
    """How many users may log in, and who is the next one who may not any more."""

    known: int
    """The number of users, the revoked among them."""
    with_access: int
    """The number of users that have something to log in with."""
    next: str | None
    """The user whose last credential ends before anybody else's; None when nobody's ends."""
    next_end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A certificate that was handed out, with the authorities to trust."""

    user: str
    certificate_der: bytes
    ca_pem: bytes
    serial: str
    expires: datetime


class UserAdministration:
    """Lists the users of a store, and changes them and their credentials."""

    def __init__(self, store: Store, users: Users, signer: Signer | None) -> None:
        """Works on the records of `store`.

        `signer` makes certificates; it is None with an authority of the user's own, which makes all certificates
        itself.
        """
        self._store = store
        self._users = users
        self._signer = signer
        self._pace = TokenBuckets(CERTIFICATES_PER_S, CERTIFICATES_AT_ONCE)
        """The pace of each user who asked for a certificate."""

    # Public - users

    def all(self) -> Sequence[ListedUser]:
        """Returns all users, the revoked among them, sorted by name."""
        self._store.catch_up()
        credentials = self._credentials()
        return [_listed(record, credentials[record.key]) for record in self._store.list(USERS)]

    def access(self) -> Access:
        """Returns how many users may log in, and whose last credential ends next."""
        ends: list[tuple[datetime, str]] = []
        with_access = 0
        for user in (everyone := self.all()):
            with_access += bool(user.credentials)
            if user.until is not None:
                ends.append((user.until, user.name))
        until, name = min(ends, default=(None, None))
        return Access(known=len(everyone), with_access=with_access, next=name, next_end=until)

    def one(self, name: str) -> ListedUser:
        """Returns one user.

        Raises:
            AdministrationFailed: there is no user of this name.
        """
        self._store.catch_up()
        record = self._store.get(USERS, name)
        if record is None:
            raise self._unknown(name)
        return _listed(record, self._credentials()[name])

    async def add(self, name: str, groups: Sequence[str], by: str) -> UserRecord:
        """Takes a user in, or gives a user that is there these groups and no others. Returns the record.

        A revoked user is taken in again: what they had before stays worthless.

        Raises:
            AdministrationFailed: the name or a group cannot be used, or the record cannot be written.
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
        """Blocks the name of a user. Returns the record.

        What was handed out to the user stays on record, so that whoever shows it is told why it is refused. It is worth
        nothing for good, also when the user is taken in again. A name that only an issuer of ID tokens gives, such as
        `oidc:ann`, needs no record before.

        Raises:
            AdministrationFailed: there is no user of this name, or the record cannot be written.
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
        """Makes a token for a user. Returns its text, of which only the hash is kept, and its record.

        Raises:
            AdministrationFailed: there is no such user, or it is revoked, or the record cannot be written.
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
        """Makes a certificate for the key of a user's request, as an operator gives it.

        Raises:
            AdministrationFailed: there is no such user, or it is revoked, or the request is not in order, or nothing
                can be signed, or the record cannot be written.
        """
        self._good(user)
        return await self._certify(user, csr_der, life, created_by=by)

    async def login(self, login: Login, csr_der: bytes) -> Certified:
        """Makes a certificate for whoever has shown a login. It ends with the login at the latest.

        Raises:
            AdministrationFailed: the user asks for certificates too fast, or the request is not in order, or nothing
                can be signed, or the record cannot be written.
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
        """Returns the changes that drop the oldest certificates of a login, to make room for another one."""
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
        """Changes the record of a user. When somebody else changed it at the same time, it calls `change` again."""
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
        """Returns all credentials that have not expired, by the names of their users."""
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
    """Makes sure that a text can be the name of a user.

    Raises:
        AdministrationFailed: it cannot.
    """
    if not is_user_name(user):
        raise AdministrationFailed(f"{user[:80]!r} cannot name a user: {USER_NAME_RULE}", USER_NAME_INVALID)


def _is_foreign(name: str) -> bool:
    """Returns whether a name can only be one that an issuer gives: no name of ours has a `:` in it."""
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
