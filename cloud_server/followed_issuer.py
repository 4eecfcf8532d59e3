"""Follows the issuer whose ID tokens the server takes, whichever the configuration names at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_server.trust.authenticator import Authenticator
from cloud_server.trust.oidc.settings import OidcSettings
from tunnel.aio.process.parts import Part, Parts
from tunnel.aio.process.tasks import TaskOwner

if TYPE_CHECKING:
    from cloud_server.trust.oidc.issuer import Issuer

PART = "oidc"
Watch = Callable[[asyncio.Task[None]], None]
"""A function that is given each task that may not end by itself."""


class FollowedIssuer:
    """Makes an authenticator take the ID tokens of an issuer.

    Call `follow` for another issuer, or for none, at any time.
    """

    def __init__(self, parts: Parts, authenticator: Authenticator) -> None:
        """Follows no issuer yet.

        `parts` tells while no keys are known yet; `away` tells that the issuer went away later.
        """
        self._parts = parts
        self._authenticator = authenticator
        self._settings: OidcSettings | None = None
        self._issuer: Issuer | None = None
        self._part: Part | None = None
        self._tasks: TaskOwner | None = None

    async def follow(self, settings: OidcSettings | None, connect_port: int | None, watch: Watch) -> bool:
        """Takes the ID tokens of another issuer, or by other settings, from now on. With None it takes no ID token.

        Args:
            settings: the issuer, and what its tokens must say; None for no issuer.
            connect_port: the port of the CONNECT listener, which `longline login` is told; None when there is none.
            watch: is given each task that may not end by itself.

        Returns:
            Whether there was another issuer before, so that the caller must end what stands on its tokens.
        """
        document = None if settings is None else await asyncio.to_thread(_document, settings, connect_port)
        self._authenticator.login_document = document
        if settings == self._settings:
            return False
        changed = self._settings is not None
        await self._end()
        self._settings = settings
        if settings is not None:
            module = await asyncio.to_thread(import_module, "cloud_server.trust.oidc.issuer")  # costs 10 MB
            self._issuer = issuer = module.Issuer(settings)
            self._tasks = TaskOwner("oidc")
            watch(self._tasks.spawn("keys", issuer.run()))
            self._part = self._parts.want(PART, issuer.opened)
            self._authenticator.id_tokens = issuer
        return changed

    @property
    def away(self) -> str:
        """Returns why the issuer does not give its keys now, though it gave them before; empty when it gives them, and
        when there is no issuer.
        """
        return self._issuer.away if self._issuer is not None and self._part is not None and self._part.up else ""

    async def aclose(self) -> None:
        """Stops taking ID tokens, and waits until the keys are not followed any more."""
        await self._end()

    # Internal

    async def _end(self) -> None:
        self._authenticator.id_tokens = self._issuer = None
        if self._part is not None:
            self._parts.forget(self._part)
            self._part = None
        if self._tasks is not None:
            await self._tasks.aclose()
            self._tasks = None


def _document(settings: OidcSettings, connect_port: int | None) -> Mapping[str, object]:
    """Returns what `longline login` is told of the issuer. Blocking."""
    return {
        "issuer": settings.issuer,
        "client_id": settings.client_id,
        "scopes": list(settings.scopes),
        "issuer_ca": _text(settings.ca_file),
        "connect_port": connect_port,
    }


def _text(path: Path | None) -> str | None:
    try:
        return path.read_text(encoding="ascii") if path is not None else None
    except (OSError, ValueError):  # the part says so
        return None
