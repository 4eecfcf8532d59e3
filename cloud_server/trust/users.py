"""Operators: known by a client certificate of role user, or by a bearer token of which only a hash is kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import structlog

from cloud_server.trust.authenticator import UserToken
from tunnel.aio.process.files import SECRET, make_folder, write_atomic
from tunnel.core.wire.faults import USER_TOKENS_UNREADABLE

USER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?")
FOLLOW_S = 1.0
_log = structlog.get_logger("cloud.users")
USER_NAME_RULE = "1 to 64 of letters, digits, '.', '_', '@' and '-', not at the ends"


class Users:
    """Tells who is asking."""

    def __init__(self, state: Path, trust_domain: str) -> None:
        self._folder = state / "users"
        self._prefix = f"spiffe://{trust_domain}/user/"
        self._by_hash: dict[str, UserToken] = {}
        self._damaged: dict[str, str] = {}
        """Files that were complained of, so that each is once."""

    def reload(self) -> None:
        """Read the tokens' hashes; a file that cannot be read stands for nobody, and keeps no other from being read.

        Blocks.

        Raises:
            OSError: the folder cannot be read.
        """
        damaged: dict[str, str] = {}
        found = dict(filter(None, (_read(path, damaged) for path in self._folder.glob("*.json"))))
        for file, reason in damaged.items():
            if self._damaged.get(file) != reason:
                _log.error(
                    "a user's token file cannot be read; the token is refused",
                    code=USER_TOKENS_UNREADABLE.code,
                    file=file,
                    reason=reason,
                )
        self._damaged = damaged
        self._by_hash = found

    async def follow(self) -> None:
        """Read again what commands changed, until cancelled."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                await asyncio.to_thread(self.reload)
            except OSError as error:
                _log.warning(
                    "users' tokens cannot be read, going on with those known",
                    code=USER_TOKENS_UNREADABLE.code,
                    reason=str(error),
                )

    def add_token(self, user: str, token: str) -> None:
        """Let a bearer token stand for a user, beside those the user has. Blocks."""
        make_folder(self._folder)
        digest = _digest(token)
        record = {"user": user, "sha256": digest, "created": datetime.now(UTC).isoformat()}
        write_atomic(self._folder / f"{user}-{digest[:12]}.json", json.dumps(record).encode(), SECRET)

    def authenticate(self, spiffe_uri: str | None, bearer: str | None) -> str | None:
        """The user's name from a verified client certificate's URI, or from a bearer token; None for nobody."""
        if spiffe_uri is not None and spiffe_uri.startswith(self._prefix):
            return spiffe_uri.removeprefix(self._prefix) or None
        # Looked up by hash: how long that takes says nothing of the token.
        token = self._by_hash.get(_digest(bearer)) if bearer else None
        return token.user if token is not None else None

    def user_token(self, sha256: str) -> UserToken | None:
        """See `authenticator.Credentials`."""
        return self._by_hash.get(sha256)


def _read(path: Path, damaged: dict[str, str]) -> tuple[str, UserToken] | None:
    """The hash and the token of one file; None, and the reason in `damaged`, when it holds neither."""
    try:
        values = json.loads(path.read_text())
        digest, user = str(values["sha256"]), str(values["user"])
        return digest, UserToken(user=user, sha256=digest, created=datetime.fromisoformat(values["created"]))
    except FileNotFoundError:
        return None  # taken away since the folder was listed
    except (OSError, ValueError, KeyError, TypeError) as error:
        damaged[str(path)] = f"{type(error).__name__}: {error}"
        return None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
