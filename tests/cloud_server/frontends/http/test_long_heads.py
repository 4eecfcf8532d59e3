"""Who takes long heads out of which pool."""

from __future__ import annotations

from cloud_server.frontends.http.long_heads import LongHeads
from tunnel.aio.sockets.http1 import MAX_LONG_HEAD_BYTES


def test_strangers_cannot_take_what_users_need() -> None:
    heads = LongHeads()
    strangers = heads.of(trusted=False)
    strangers.reserve(strangers.available_bytes)
    assert strangers.available_bytes == 0
    assert heads.of(trusted=True).available_bytes >= 16 * MAX_LONG_HEAD_BYTES
