"""Who takes long heads out of which pool."""

from __future__ import annotations

from tunnel.aio.http.http1 import MAX_LONG_HEAD_BYTES
from tunnel.aio.http.long_heads import LongHeads


def test_strangers_cannot_take_what_users_need() -> None:
    heads = LongHeads()
    strangers = heads.of(trusted=False)
    strangers.reserve(strangers.available_bytes)
    assert strangers.available_bytes == 0
    assert heads.of(trusted=True).available_bytes >= 16 * MAX_LONG_HEAD_BYTES
