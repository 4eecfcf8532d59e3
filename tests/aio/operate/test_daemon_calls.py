"""What both daemons do in the same way, asked at a real socket; their own tests have it through real daemons."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from tunnel.aio.operate import daemon_calls
from tunnel.aio.operate.admin import AdminCall, AdminServer, Routes
from tunnel.aio.operate.admin_client import AdminRefused, unix_client
from tunnel.aio.operate.desired_state import Reloaded
from tunnel.aio.process import logs


async def test_a_level_and_a_file_that_cannot_be_used() -> None:
    why: list[str] = []

    async def level(call: AdminCall) -> object:
        return daemon_calls.set_log_level(call)

    async def reload(call: AdminCall) -> object:
        async def read_again(reason: str) -> Reloaded:
            why.append(reason)
            return Reloaded(generation=1, fault="no TOML" if len(why) == 1 else "")

        return (await daemon_calls.reload(call, read_again, "some-daemon check")).as_json()

    routes, before = Routes(), logs.level()
    routes.add("PUT", "log-level", level)
    routes.add("POST", "reload", reload)
    with tempfile.TemporaryDirectory(prefix="ll-") as folder:
        server = AdminServer(routes, Path(folder) / "admin.sock")
        await server.open()
        client = unix_client(Path(folder) / "admin.sock")
        try:
            for wanted in logs.LEVELS:
                answer = await asyncio.to_thread(client.call, "PUT", "log-level", {"level": wanted})
                assert answer == {"level": wanted}
                assert logs.level() == wanted
            with pytest.raises(AdminRefused, match="one of debug, info, warning, error") as refused:
                await asyncio.to_thread(client.call, "PUT", "log-level", {"level": "loud"})
            assert refused.value.status == 400
            with pytest.raises(AdminRefused, match="no TOML") as refused:
                await asyncio.to_thread(client.call, "POST", "reload")
            told = (refused.value.status, refused.value.code, refused.value.remedy)
            assert told == (409, "LL1004", "some-daemon check")
            assert (await asyncio.to_thread(client.call, "POST", "reload"))["generation"] == 1
            assert why[0].startswith("asked for by local_process:uid:")
        finally:
            logs.set_level(before)
            await server.aclose()
