"""Follows an issuer whose ID tokens are taken: fetches its keys in the background, by age and
when a new one comes up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from cloud_server.trust.authenticator import Identified, LoginRefused
from cloud_server.trust.oidc.fetch import FetchFailed, fetch_json
from cloud_server.trust.oidc.keys import KeySet
from cloud_server.trust.oidc.settings import OidcSettings
from cloud_server.trust.oidc.verifier import Verifier
from tunnel.aio.identity.validity import date
from tunnel.aio.process.parts import PartFailed
from tunnel.core.wire.faults import BUG, ISSUER_UNREACHABLE

DISCOVERY = "/.well-known/openid-configuration"
"""The path of the discovery document behind the issuer's URL (OpenID Connect Discovery 4)."""
REFRESH_S = 3600.0
"""Seconds after which keys are fetched again: a key that an issuer withdraws is refused within that time."""
RETRY_S = 60.0
"""Seconds between two attempts while the issuer does not answer."""
KEEP_S = 24 * 3600.0
"""Seconds for which the last keys are good without an answer. Tokens live an hour or so, and nobody gets another
meanwhile; a key that was withdrawn must not be good for ever because the issuer cannot be asked."""
UNKNOWN_KID_S = 5.0
"""The least seconds between two fetches that tokens with unknown keys cause: strangers can make up such tokens."""
READY_S = 8.0
"""The most seconds that whoever shows a token with an unknown key waits for the keys: for the next time that they may
be fetched, and for that fetch. So nobody is refused for a rotation, whatever strangers make up meanwhile."""

Fetch = Callable[[str, Path | None], Awaitable[dict[str, Any]]]
_log = structlog.get_logger("cloud.oidc")


class Issuer:
    """An issuer whose ID tokens are taken, as `authenticator.IdTokens` demands it.

    `run` fetches its keys until cancelled.
    """

    def __init__(self, settings: OidcSettings, fetch: Fetch = fetch_json) -> None:
        """Has no keys yet. `fetch` gets a JSON object from a URL by the authorities in a file,
        or raises FetchFailed.
        """
        self._settings = settings
        self._fetch = fetch
        self._verifier = Verifier(settings)
        self._wanted = asyncio.Event()
        self._over = asyncio.Event()
        """Is set when the attempt that is under way, or else the next one, is over. Each attempt has an event of its
        own."""
        self._busy = False
        self._began_s = float("-inf")
        self._unknown_s = float("-inf")
        """When an unknown key caused a fetch last, on the loop's clock."""
        self._good_s = float("-inf")
        self._good_at: datetime | None = None
        self.away = ""
        """The reason why the issuer does not give its keys now; empty when it does."""

    # Public

    def verify(self, text: str, address: str) -> Identified:
        """Verifies an ID token, and returns its owner; see `IdTokens`.

        Raises:
            LoginRefused: the token is worth nothing here.
        """
        return self._verifier.verify(text, address)

    async def ready(self, text: str) -> None:
        """Waits until the key that a token names is known, READY_S at most. The fetch outlives
        a caller that gives up.
        """
        if not self._lacks_key(text):
            return
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while not self._under_way and (wait_s := self._unknown_s + UNKNOWN_KID_S - loop.time()) > 0:  # noqa: ASYNC110
                    await asyncio.sleep(wait_s)
                if not self._under_way:
                    self._unknown_s = loop.time()
                await self._attempted()

    async def opened(self) -> None:
        """Waits until there are keys.

        Raises:
            PartFailed: another attempt has failed.
        """
        if self._verifier.keys is None:
            await self._attempted()
        if self._verifier.keys is None:
            raise PartFailed(self.away, ISSUER_UNREACHABLE)

    async def run(self) -> None:
        """Fetches the keys whenever that is due or wanted, until cancelled."""
        while True:
            due_s = RETRY_S if self.away else REFRESH_S * random.uniform(0.9, 1)  # noqa: S311 - nobody guesses it
            with suppress(TimeoutError):
                async with asyncio.timeout(due_s):
                    await self._wanted.wait()
            self._wanted.clear()
            self._busy = True
            self._began_s = asyncio.get_running_loop().time()
            try:
                self._came(await issuer_keys(self._settings, self._fetch))
            except FetchFailed as error:
                self._missed(error.text)
            except Exception:  # noqa: BLE001 - whatever an issuer's documents are, the server goes on
                _log.exception("an issuer's keys cannot be used for a fault of the daemon", code=BUG.code)
                self._missed("a fault of the daemon, whose log says more")
            self._busy = False
            over, self._over = self._over, asyncio.Event()
            over.set()

    # Internal

    @property
    def _under_way(self) -> bool:
        return self._busy or self._wanted.is_set()

    async def _attempted(self) -> None:
        over = self._over
        if not self._busy:
            self._wanted.set()
        await over.wait()

    def _lacks_key(self, text: str) -> bool:
        try:
            head = self._verifier.head(text)
        except LoginRefused:
            return False
        keys = self._verifier.keys
        return keys is None or not keys.matching(head.kid, head.algorithm)

    def _came(self, keys: KeySet) -> None:
        before = self._verifier.keys
        if before is None or before.content != keys.content:
            _log.info("the issuer's keys are known", issuer=self._settings.issuer, keys=len(keys))
        elif self.away:
            _log.info("the issuer says its keys again", issuer=self._settings.issuer)
        self._verifier.use(keys)
        self._good_s, self._good_at, self.away = self._began_s, datetime.now(UTC), ""

    def _missed(self, why: str) -> None:
        if self._began_s - self._good_s > KEEP_S:
            self._verifier.use(None)
        kept = f"; those of {date(self._good_at)} stay" if self._good_at and self._verifier.keys is not None else ""
        if not self.away and self._good_at is not None:  # until there are any, the part tells of it
            text = f"the issuer does not say its keys{kept}"
            _log.warning(text, code=ISSUER_UNREACHABLE.code, issuer=self._settings.issuer, reason=why)
        self.away = f"{why}{kept}"


async def issuer_keys(settings: OidcSettings, fetch: Fetch = fetch_json) -> KeySet:
    """Returns the keys of an issuer, by its discovery document.

    Raises:
        FetchFailed: they cannot be had.
    """
    where = settings.issuer.rstrip("/") + DISCOVERY
    document = await fetch(where, settings.ca_file)
    if document.get("issuer") != settings.issuer:
        said = str(document.get("issuer"))[:200]
        raise FetchFailed(f"{where} is of the issuer {said!r}, not of {settings.issuer!r}: [oidc] issuer must be that")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str):
        raise FetchFailed(f"{where} has no jwks_uri")
    try:
        keys = KeySet(await fetch(uri, settings.ca_file), settings.algorithms)
    except ValueError as error:
        raise FetchFailed(f"{uri} cannot be used: {error}") from error
    if not len(keys):
        raise FetchFailed(f"{uri} has no key for {', '.join(settings.algorithms)}")
    return keys
