"""Keeps the users of a store: who they are, what was handed out to them, and when each credential was shown last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import structlog

from cloud_server.trust.authenticator import PROOF_DIGITS, LoginRefused
from cloud_server.trust.records import (
    BEARER,
    LAST_USED,
    LOGIN,
    USER_CERTIFICATES,
    USER_TOKENS,
    USERS,
    LastUse,
    UserCertificate,
    UserRecord,
    UserToken,
)
from cloud_server.trust.store import Change, Good, Kind, Record, Store, StoreUnavailable, Unreadable, value_of
from tunnel.aio.identity.validity import Validity, Watched
from tunnel.core.wire.faults import RECORD_UNREADABLE

WRITE_EVERY_S = 300.0
"""Seconds between two writes of when credentials were used. A server that is killed loses that much of a date that is
exact to the hour."""
BATCH = 200
"""The most records of one write; see `sightings.BATCH`."""
HOUR_S = 3600
TOKENS_KEPT = timedelta(days=30)
"""How long a token that has expired is listed, so that whoever asks why it stopped finds it."""
CERTIFICATES_KEPT = timedelta(days=1)
"""How long a certificate that has expired is listed. It is short: a login makes two certificates a day."""

SHORT = timedelta(days=2)
"""The life under which certificates are not watched: they come from logins, which get the next one by themselves, or
are for one task."""

SERIAL_DIGITS = 8
"""The number of digits of a certificate's serial number in the label of its figure. They tell apart the certificates of
one user."""
_log = structlog.get_logger("cloud.store")


class Users:
    """The credentials in a store, as `authenticator.Credentials` demands them."""

    def __init__(self, store: Store, *, recorded: bool = True) -> None:
        """Reads the records of `store`.

        `recorded` says that certificates come from an authority of ours, which notes each.
        """
        self._store = store
        self.recorded = recorded
        self._hours: dict[str, int] = {}
        """When each credential was used last, in hours since 1970; as many as there are credentials."""
        self._unwritten: dict[str, int] = {}
        store.watch(USER_TOKENS, self._gone)
        store.watch(USER_CERTIFICATES, self._gone)

    # Public - Credentials

    def catch_up(self) -> None:
        """Reads what other processes have changed until now, so that a command of a moment ago counts.

        It costs some 4 us.
        """
        self._store.catch_up()

    def user(self, name: str) -> UserRecord | None:
        """Returns the record of a user; None when there is none.

        Raises:
            LoginRefused: the record cannot be read, and this process never could.
        """
        found = self._store.get(USERS, name)
        if isinstance(found, Unreadable) and found.last is None:
            raise LoginRefused(f"the server cannot read what it keeps of {name}; its log says more", RECORD_UNREADABLE)
        return value_of(found)

    def user_token(self, sha256: str) -> UserToken | None:
        """Returns the token with a hash; None when there is none, or its record never could be read."""
        return value_of(self._store.get(USER_TOKENS, sha256))

    def user_certificate(self, serial: str) -> UserCertificate | None:
        """Returns the certificate with a serial; None when there is none, or its record never could be read."""
        return value_of(self._store.get(USER_CERTIFICATES, serial))

    def used(self, key: str) -> None:
        """Notes that a credential was good just now.

        It is called for each request, and does more than a look-up once an hour.
        """
        hour = int(datetime.now(UTC).timestamp()) // HOUR_S
        if self._hours.get(key) == hour:
            return
        if self._store.get(USER_TOKENS, key) is None and self._store.get(USER_CERTIFICATES, key) is None:
            return  # of an authority that tells us nothing: there is no list to show it in
        self._hours[key] = hour
        kept = value_of(self._store.get(LAST_USED, key))
        if kept is None or kept.hour != _moment(hour):
            self._unwritten[key] = hour

    # Public

    def last_used(self, key: str) -> datetime | None:
        """Returns when a credential was shown last, to the hour; None when it never was."""
        if (hour := self._unwritten.get(key)) is not None:
            return _moment(hour)
        kept = value_of(self._store.get(LAST_USED, key))
        return kept.hour if kept is not None else None

    def lasting(self) -> list[Watched]:
        """Returns the credentials whose end nobody else sees in time.

        They are certificates that operators made for machines, and logins and tokens until they end. They are of users
        that may log in. One that was not shown any more since the user got another of its kind that is good for longer
        is left out.
        """
        certificates = [one.value for one in _good(self._store.list(USER_CERTIFICATES)) if not one.value.login]
        now = datetime.now(UTC)
        tokens = [
            one.value
            for one in _good(self._store.list(USER_TOKENS))
            if one.value.expires is not None and one.value.expires > now
        ]
        found = [self._not_replaced(certificates, lambda one: one.serial, _watched)]
        for purpose in (LOGIN, BEARER):
            of_purpose = [one for one in tokens if one.purpose == purpose]
            found.append(self._not_replaced(of_purpose, lambda one: one.sha256, _watched_token))
        return [one for some in found for one in some]

    def when_changed(self, on_changed: Callable[[str], None]) -> None:
        """Makes `on_changed` be called with the name of each user who changes or loses a credential from now on."""

        def lost(_key: str, before: Record[Any] | None, after: Record[Any] | None) -> None:
            owned: UserToken | UserCertificate | None = value_of(before)
            if after is None and owned is not None:
                on_changed(owned.user)

        self._store.watch(USER_TOKENS, lost)
        self._store.watch(USER_CERTIFICATES, lost)
        self._store.watch(USERS, lambda name, _before, _after: on_changed(name))

    async def keep(self) -> None:
        """Writes now and then when credentials were used, until cancelled.

        Before the first time, and then each time, it drops what is long over.
        """
        while True:
            try:
                await self.tidy()
            except StoreUnavailable as error:
                _log.warning("old credentials stay in the list", code=error.fault.code, reason=str(error))
            await asyncio.sleep(WRITE_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Writes when credentials were used. What cannot be written now is kept for the next time."""
        while batch := dict(islice(self._unwritten.items(), BATCH)):
            try:
                await self._store.commit(
                    *(Change(LAST_USED, key, LastUse(hour=_moment(hour))) for key, hour in batch.items())
                )
            except StoreUnavailable as fault:
                text = "when credentials were used last cannot be kept"
                _log.warning(text, code=fault.fault.code, reason=str(fault))
                return
            for key, hour in batch.items():
                if self._unwritten.get(key) == hour:
                    del self._unwritten[key]

    async def tidy(self) -> int:
        """Drops the records of credentials that are long over. Returns how many records those were.

        Raises:
            StoreUnavailable: that cannot be written.
        """
        now = datetime.now(UTC)
        over: list[Change[Any]] = []
        for token in _good(self._store.list(USER_TOKENS)):
            if token.value.expires is not None and token.value.expires + TOKENS_KEPT < now:
                over += taken_away(self._store, USER_TOKENS, token.key)
        for one in _good(self._store.list(USER_CERTIFICATES)):
            if one.value.expires + CERTIFICATES_KEPT < now:
                over += taken_away(self._store, USER_CERTIFICATES, one.key)
        for start in range(0, len(over), BATCH):
            await self._store.commit(*over[start : start + BATCH])
        return len(over)

    # Internal

    def _not_replaced(
        self, made: Iterable[Any], key: Callable[[Any], str], watched: Callable[[Any], Watched]
    ) -> list[Watched]:
        """Returns those that last and that no other of them took the place of."""
        lasting = [one for one in made if one.expires - one.created >= SHORT and self._may_log_in(one)]
        return [watched(one) for one in lasting if not any(self._took_over(other, one, key(one)) for other in lasting)]

    def _may_log_in(self, one: UserCertificate | UserToken) -> bool:
        user = value_of(self._store.get(USERS, one.user))
        return user is not None and user.revoked is None and one.created >= user.valid_from

    def _took_over(self, later: Any, one: Any, key: str) -> bool:
        if later.user != one.user or later.created <= one.created or later.expires <= one.expires:
            return False
        used = self.last_used(key)
        return used is None or used <= later.created

    def _gone(self, key: str, _before: object, after: object) -> None:
        if after is None:
            self._hours.pop(key, None)
            self._unwritten.pop(key, None)


def taken_away(store: Store, kind: Kind[Any], key: str) -> list[Change[Any]]:
    """Returns the changes that take a credential away, and with it the record of its last use."""
    used = [] if store.get(LAST_USED, key) is None else [Change(LAST_USED, key, None)]
    return [Change(kind, key, None), *used]


def _watched(one: UserCertificate) -> Watched:
    return Watched(
        name=f"user {one.user} {one.serial[:SERIAL_DIGITS]}",
        what=f"the certificate of user {one.user}, serial {one.serial},",
        validity=Validity(one.created, one.expires),
        remedy=f"give them another: cloud-server user certificate {one.user}",
    )


def _watched_token(one: UserToken) -> Watched:
    assert one.expires is not None
    proof = one.sha256[:PROOF_DIGITS]
    command = "user kubeconfig" if one.purpose == LOGIN else "user token"
    return Watched(
        name=f"user {one.user} {one.sha256[:SERIAL_DIGITS]}",
        what=f"the {'login' if one.purpose == LOGIN else 'token'} of user {one.user}, id {proof},",
        validity=Validity(one.created, one.expires),
        remedy=f"give them another, if they are to stay: cloud-server {command} {one.user}",
    )


def _good(records: Any) -> Iterator[Good[Any]]:
    return (record for record in records if isinstance(record, Good))


def _moment(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * HOUR_S, UTC)
