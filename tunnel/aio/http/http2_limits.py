"""Bounds what one HTTP/2 connection may take of a server, and makes the library's connection hold a client to it."""

from __future__ import annotations

from dataclasses import dataclass

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

FRAME_BYTES = 16 * 1024
"""The largest frame that a client may send; nobody may send larger ones unasked."""
PING_S = 20.0
"""Seconds of silence after which a client is pinged. Load balancers and NATs forget a connection that was silent for a
minute, HAProxy's usual settings for 50 s, some for 30 s.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """The limits of one connection. With `max_streams` full windows and heads a client has left all that it can leave
    here.
    """

    max_streams: int
    """How many streams may be open at once."""
    window_bytes: int
    """Bytes that a client may send on a stream ahead of whoever takes them."""
    head_bytes: int
    """Bytes of a request's header list, as RFC 9113 6.5.2 counts it."""
    heads_bytes: int
    """Bytes of the header lists of all open streams together. A stream beyond that is refused, and clients try again by
    themselves.
    """
    first_s: float
    """Seconds that a connection may take to ask for its first stream."""
    idle_s: float
    """Seconds that a connection may be without a stream later on."""
    ping_s: float | None
    """Seconds of silence in either direction, while streams are open, after which the client is pinged; None means
    never.
    """


def new_h2(limits: Http2Limits) -> H2Connection:
    """Returns a server's connection of the library, whose settings are not sent yet."""
    h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    h2.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.window_bytes,
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.max_streams,
            SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.head_bytes,
        },
    )
    h2.decoder.max_header_list_size = limits.head_bytes
    return h2
