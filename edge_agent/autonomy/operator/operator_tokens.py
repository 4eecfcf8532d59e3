"""The credential of the node's local operator: a token that the box makes, and that nobody else takes.

It says whose it is and when it ends, under a seal (HMAC-SHA256) of a key in the state folder. Who can read the key is
root or the agent; whoever removes it ends all tokens that were made with it. Every such token begins in the same way,
so that none, however old, is ever passed on to the API server.
"""

from __future__ import annotations

import hmac
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from tunnel.aio.process.files import SECRET, write_once
from tunnel.core.wire.faults import OPERATOR_UNKNOWN, STATE_NOT_WRITABLE, FaultError

PREFIX = "longline-operator-"
KEY = "operator.key"
"""The name of the key in the state folder."""
KEY_BYTES = 32
MAX_TOKEN_CHARS = 1024
MAX_NAME_CHARS = 64


class Operator(NamedTuple):
    """Who has a token."""

    name: str
    end: datetime
    token_id: str = ""
    """What records name the token by: the beginning of its hash."""


class OperatorUnknown(FaultError):
    """A token is not one of this box, or has ended; the text says which."""

    default_fault = OPERATOR_UNKNOWN


class KeyUnavailable(FaultError):
    """There is no key to make tokens with; the text says why."""

    default_fault = STATE_NOT_WRITABLE


def is_operator_token(token: str | None) -> bool:
    """Returns whether a token is meant for the box alone, also when it is not good."""
    return token is not None and token.startswith(PREFIX)


def new_token(folder: Path, operator: Operator) -> str:
    """Returns a token, and makes the key when there is none. Blocks.

    Args:
        folder: the state folder.
        operator: who gets it, and when it ends.

    Raises:
        KeyUnavailable: the key cannot be made or read.
    """
    path = folder / KEY
    try:
        if not path.exists():
            write_once(path, os.urandom(KEY_BYTES), SECRET)
        key = _read(path)
    except OSError as error:
        raise KeyUnavailable(f"{path}: {error.strerror}") from error
    said = json.dumps([operator.name[:MAX_NAME_CHARS], int(operator.end.timestamp())]).encode()
    return f"{PREFIX}{_text(said)}.{_text(_seal(key, said))}"


def read_token(folder: Path, token: str, now: datetime) -> Operator:
    """Returns who has a token. Blocks.

    Raises:
        OperatorUnknown: nobody any more.
    """
    try:
        key = _read(folder / KEY)
    except OSError:
        raise OperatorUnknown("the box has given out no token for its operator") from None
    return opened(key, token, now)


def opened(key: bytes, token: str, now: datetime) -> Operator:
    """Returns who has a token that was made with a key.

    Raises:
        OperatorUnknown: nobody any more.
    """
    try:
        said, seal = (urlsafe_b64decode(part) for part in token[:MAX_TOKEN_CHARS].removeprefix(PREFIX).split("."))
    except ValueError:
        raise OperatorUnknown("this is no token of the box's operator") from None
    if not hmac.compare_digest(seal, _seal(key, said)):
        raise OperatorUnknown("the token was not made by this box, or with a key that is gone")
    name, end = json.loads(said)
    operator = Operator(name, datetime.fromtimestamp(end, UTC), token_id(token))
    if now >= operator.end:
        raise OperatorUnknown(f"the token of {name} ended at {operator.end:%Y-%m-%dT%H:%M:%SZ}")
    return operator


def token_id(token: str) -> str:
    """Returns what records name a token by."""
    return sha256(token.encode()).hexdigest()[:8]


# Internal


def _read(path: Path) -> bytes:
    """Returns the key; one that is shorter was not written by us.

    Raises:
        OSError: there is none.
    """
    key = path.read_bytes()
    if len(key) < KEY_BYTES:
        raise OSError(0, "it is no key")
    return key


def _seal(key: bytes, said: bytes) -> bytes:
    return hmac.digest(key, said, "sha256")


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode()
