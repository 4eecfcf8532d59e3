"""Runs the work of commands that change records. It is done in the command's own process, on the state folder; a
running server looks into that folder and sees the change.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from cloud_server.config import ServerConfig, signer_of, state_of
from cloud_server.trust.administration import Administration
from cloud_server.trust.administration_failed import AdministrationFailed
from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.state import open_state
from cloud_server.trust.store import StoreUnavailable
from cloud_server.trust.users import Users

T = TypeVar("T")


def administer(config: ServerConfig, work: Callable[[Administration], Awaitable[T]]) -> T:
    """Opens the records of a configuration's state folder, runs `work` with them, and returns its result. Blocks until
    it is done.

    Raises:
        AdministrationFailed: it cannot be done; nothing was changed.
    """
    # What is wrong with the records is for whoever reads standard error: on standard output a token is expected.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    return asyncio.run(_administer(config, work))


async def _administer(config: ServerConfig, work: Callable[[Administration], Awaitable[T]]) -> T:
    state, own_authority = state_of(config), config.tunnel.client_ca is not None
    try:
        store = await asyncio.to_thread(open_state, state)
    except StoreUnavailable as error:
        raise AdministrationFailed.of(error) from error
    signer = signer_of(config)
    try:
        agents = JoinedAgents(store, pins_unknown=own_authority)
        users = Users(store, recorded=not own_authority)
        return await work(Administration(store, agents, signer, users))
    finally:
        if signer is not None:
            await signer.aclose()
        await store.aclose()
