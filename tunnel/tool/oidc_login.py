"""Keeps a login at an issuer on this machine, and gets ID tokens for it.

The refresh token lies in `$XDG_CONFIG_HOME/longline/logins`, mode 0600, one file for each server; the ID token beside
the certificates of `credential.py`, where kubectl's plugin finds it without loading any of this.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from tunnel.aio.process.files import SECRET, write_atomic
from tunnel.core.wire.faults import NOT_LOGGED_IN
from tunnel.kubeapi.kubeconfig import EXEC_API
from tunnel.tool.credential import ISSUER, kept, now_s, path_of
from tunnel.tool.issuer import Client, Issuer, LoginRefused, Tokens
from tunnel.tool.settings import settings_file

SPARE_S = 30.0
"""The least seconds that an ID token must have left to be handed out while another can be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A login as its file has it."""

    server: str
    """The URL of the fleet API."""
    client: Client
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An ID token that is good now."""

    credential: str = field(repr=False)
    """The ExecCredential that kubectl is told."""
    warning: str = ""

    @property
    def text(self) -> str:
        """Returns the token itself."""
        return str(json.loads(self.credential)["status"]["token"])


def id_token(server: str) -> Token:
    """Returns the ID token for a server: the one that is kept, or another one from the issuer.

    Raises:
        LoginRefused: nobody is logged in, or the issuer gives none.
    """
    if (found := _good(server)) is not None:
        return found
    with _locked(server):  # issuers take each refresh token once: two commands must not show the same
        if (found := _good(server)) is not None:
            return found
        login = read(server)
        if login is None or not login.refresh_token:
            text = f"the login for {server} is over: longline login" if login else f"nobody is logged in at {server}"
            raise LoginRefused(f"{text}{'' if login else ': longline login --server ' + server}", NOT_LOGGED_IN)
        try:
            tokens = Issuer(login.client).refresh(login.refresh_token)
        except LoginRefused as error:
            left = _good(server, spare_s=0)
            if left is None:
                raise
            return Token(credential=left.credential, warning=f"your ID token ends soon, and there is no other: {error}")
        return keep(server, login.client, tokens)


def keep(server: str, client: Client, tokens: Tokens) -> Token:
    """Writes what an issuer gave to this machine, and returns the ID token.

    Raises:
        LoginRefused: it cannot be written.
    """
    login = Kept(server=server, client=client, refresh_token=tokens.refresh_token)
    credential = _credential(tokens)
    try:
        _write(_path(server), json.dumps(asdict(login)).encode())
        _write(Path(path_of(server, ISSUER)), f"{tokens.expires_s - SPARE_S}\n{credential}".encode())
    except OSError as error:
        raise LoginRefused(f"the login cannot be kept: {error.filename}: {error.strerror}") from error
    return Token(credential=credential)


def read(server: str) -> Kept | None:
    """Returns the login for a server; None when there is none.

    Raises:
        LoginRefused: its file cannot be read.
    """
    path = _path(server)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        client = values["client"]
        return Kept(
            server=str(values["server"]),
            client=Client(**{**client, "scopes": tuple(client["scopes"])}),
            refresh_token=str(values["refresh_token"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoginRefused(f"{path} cannot be read ({error}): remove it, and log in again", NOT_LOGGED_IN) from error


def forget(server: str) -> None:
    """Removes the login for a server from this machine."""
    for path in (_path(server), Path(path_of(server, ISSUER))):
        path.unlink(missing_ok=True)


# Internal


def _good(server: str, spare_s: float = SPARE_S) -> Token | None:
    found = kept(path_of(server, ISSUER))
    return Token(credential=found[1]) if found is not None and now_s() < found[0] + SPARE_S - spare_s else None


def _credential(tokens: Tokens) -> str:
    end = datetime.fromtimestamp(tokens.expires_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"expirationTimestamp": end, "token": tokens.id_token}
    return json.dumps({"apiVersion": EXEC_API, "kind": "ExecCredential", "status": status}) + "\n"


def _path(server: str) -> Path:
    return settings_file().parent / "logins" / f"{sha256(server.encode()).hexdigest()[:32]}.json"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, data, SECRET)


@contextlib.contextmanager
def _locked(server: str) -> Iterator[None]:
    """Waits for other commands of this user that refresh the same login."""
    path = _path(server).with_suffix(".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, SECRET)
    except OSError as error:
        raise LoginRefused(f"{path} cannot be made: {error.strerror}") from error
    try:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
