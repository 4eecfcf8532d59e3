"""Join tokens on the server's side: made, and used once, as files that a running server and its commands share."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.validity import date
from tunnel.aio.process.files import SECRET, make_folder, write_atomic
from tunnel.core.wire.faults import TOKEN_EXPIRED, TOKEN_UNKNOWN, TOKEN_USED, FaultError

if TYPE_CHECKING:  # it brings the X.509 library, which using a token up does without
    from cloud_server.trust.ca import CertificateAuthority

DEFAULT_LIFE = timedelta(hours=24)
GRACE = timedelta(days=30)
"""The certificate inside outlives the token, so that a late box is told what is wrong, not cut off in the handshake."""


class TokenRefused(FaultError):
    """A token cannot be used; the text is for the box's owner."""

    default_fault = TOKEN_UNKNOWN


class TokenStore:
    """Tokens of a state folder: `tokens/<id>.json` until used, then `tokens/used/<id>.json`."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "tokens"
        self._used = self._folder / "used"

    def create(self, authority: CertificateAuthority, agent: str, life: timedelta = DEFAULT_LIFE) -> JoinToken:
        """Make a token for an agent; any number may be out at a time.

        Raises:
            OSError: the state folder cannot be written.
        """
        make_folder(self._folder)
        make_folder(self._used)
        token_id = secrets.token_hex(16)
        expires = datetime.now(UTC) + life
        issued = authority.issue_join(token_id, life + GRACE)
        record = {"agent": agent, "expires": expires.isoformat()}
        write_atomic(self._folder / f"{token_id}.json", json.dumps(record).encode(), SECRET)
        return JoinToken(
            agent=agent,
            expires=expires,
            ca_pem=authority.pem,
            certificate_pem=issued.certificate_pem,
            key_pem=issued.key_pem,
        )

    def use(self, token_id: str) -> str:
        """Use a token up; returns the agent's name. Of several that try at once, one succeeds.

        Raises:
            TokenRefused: unknown, used or expired.
        """
        if not token_id.isalnum():
            raise TokenRefused("the join token is not known here")
        path, used = self._folder / f"{token_id}.json", self._used / f"{token_id}.json"
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            if used.exists():
                raise TokenRefused(
                    "the join token was used already; make another: cloud-server token create", TOKEN_USED
                ) from None
            raise TokenRefused("the join token is not known here; make one: cloud-server token create") from None
        expires = datetime.fromisoformat(record["expires"])
        if datetime.now(UTC) >= expires:
            clock = f"the server's clock says {date(datetime.now(UTC))}"
            raise TokenRefused(f"the join token expired at {date(expires)} ({clock}); make another", TOKEN_EXPIRED)
        try:
            path.rename(used)
        except FileNotFoundError:
            raise TokenRefused(
                "the join token was used already; make another: cloud-server token create", TOKEN_USED
            ) from None
        return str(record["agent"])
