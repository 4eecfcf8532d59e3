"""Follows the policy file of a running server: reads it at the start, and swaps the whole policy when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from cloud_server.rights.changes import policy_changes
from cloud_server.rights.policy_file import NO_POLICY, PolicyFile, load_policy_if_any
from tunnel.aio.operate.desired_state import DesiredState, Reloaded
from tunnel.aio.process.config import ConfigError
from tunnel.core.wire.faults import POLICY_MISSING

REMEDY = "cloud-server policy init --admin NAME"

_log = structlog.get_logger("cloud.policy")


class FollowedPolicy:
    """Follows the policy file. Call `load` first, then `run`; call `use` when the configuration names another file."""

    def __init__(self, path: Path, swap: Callable[[PolicyFile], None], on_reloaded: Callable[[Reloaded], None]) -> None:
        """Reads nothing yet.

        Args:
            path: of the file.
            swap: makes the server go by another policy.
            on_reloaded: is told the result of each look at the file that found something.
        """
        self._swap = swap
        self.state = DesiredState(
            path, NO_POLICY, load=_load, apply=self._apply, compare=policy_changes, what="policy",
            on_reloaded=on_reloaded,
        )  # fmt: skip

    @property
    def is_missing(self) -> bool:
        """Returns whether there has been no file since the start."""
        return self.state.current is NO_POLICY

    @property
    def fault(self) -> str:
        """Returns why the file as it is now cannot be used; empty when it can."""
        return self.state.fault

    @property
    def needs_restart(self) -> Sequence[str]:
        """Returns what of the policy needs a restart. It is always empty: all of a policy is applied at once."""
        return self.state.needs_restart

    def as_json(self) -> dict[str, Any]:
        """Returns the state as `status` of the admin API shows it, with the number of roles and bindings, ready for
        JSON.
        """
        current = self.state.current
        return {**self.state.as_json(), "roles": len(current.role), "bindings": len(current.binding)}

    async def load(self) -> None:
        """Reads the file for the first time. Without a file users may do nothing, and the log says so.

        Raises:
            ConfigError: there is a file, and it cannot be used.
        """
        state = self.state
        found = await asyncio.to_thread(load_policy_if_any, state.path)
        if found is None:
            state.fault = _missing(state.path)
            text = "there is no policy file: users may do nothing"
            _log.warning(text, code=POLICY_MISSING.code, path=str(state.path), remedy=REMEDY)
            return
        state.current = found
        self._swap(found)

    async def run(self) -> None:
        """Follows the file until cancelled."""
        await self.state.run()

    async def use(self, path: Path) -> None:
        """Follows another file from now on. While that one cannot be used, the policy from before stays in force."""
        self.state.path = path
        await self.state.reload("the configuration names another file")

    # Internal

    async def _apply(self, _old: PolicyFile, new: PolicyFile) -> None:
        self._swap(new)


def _load(path: Path) -> PolicyFile:
    found = load_policy_if_any(path)
    if found is None:
        raise ConfigError([_missing(path)], POLICY_MISSING)
    return found


def _missing(path: Path) -> str:
    return f"{path}: there is no such file: {REMEDY} makes one"
