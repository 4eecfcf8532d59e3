"""Keeps certificates that a user got for logins on this machine, until their time is nearly over.

Each is a file of two lines: until when it is to be used without asking for another, in seconds since 1970, and what
kubectl is told of it (ExecCredential). Nothing is imported here that takes time: kubectl waits for this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

LOGIN = "LONGLINE_LOGIN"
"""The same as in `tunnel.kubeapi.kubeconfig`, which takes a while to import."""
SERVER = "--server"
BY_ISSUER = "--oidc"
"""The same as in `tunnel.kubeapi.kubeconfig`, which takes a while to import."""
ISSUER = "oidc"
"""What stands in the place of a login, for the ID token of a server's users."""


def kept_for(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns what to tell a kubectl that started `longline credential` with these words.

    None when nothing is kept that would do, or when the words are not those of our kubeconfigs.
    """
    login = environment.get(LOGIN)
    if words and words[0] == BY_ISSUER:
        login, words = ISSUER, words[1:]
    if not login or len(words) != 2 or words[0] != SERVER:
        return None
    found = kept(path_of(words[1], login, environment))
    return found[1] if found is not None and now_s() < found[0] else None


def kept(path: str) -> tuple[float, str] | None:
    """Returns until when a certificate is to be used as it is, in seconds since 1970, and what kubectl is told; None
    when there is none.
    """
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - pathlib takes 4 ms
            until, text = file.readline(), file.read()
        return float(until), text
    except (OSError, ValueError):
        return None


def path_of(server: str, login: str, environment: Mapping[str, str] = os.environ) -> str:
    """Returns the path of the file with the certificate of a login. Its name tells nothing of the login."""
    from hashlib import sha256

    cache = environment.get("XDG_CACHE_HOME") or ""
    if not cache.startswith("/"):
        cache = os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118 - as above
    name = sha256(f"{server}\n{login}".encode()).hexdigest()[:32]
    return os.path.join(cache, "longline", "certificates", name)  # noqa: PTH118 - as above


def now_s() -> float:
    """Returns the seconds since 1970 by the wall clock, which certificates go by."""
    return time.time()  # noqa: TID251 - datetime takes 2 ms
