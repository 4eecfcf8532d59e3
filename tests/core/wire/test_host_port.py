"""tunnel.core.wire.host_port: the parts of host:port."""

from __future__ import annotations

import pytest

from tunnel.core.wire.host_port import split_host_port


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("10.0.0.9:22", ("10.0.0.9", "22")),
        ("[2001:db8::1]:443", ("2001:db8::1", "443")),
        ("[2001:db8::1:443", ("[2001:db8::1", "443")),
        (":7443", ("", "7443")),
        ("box:http", ("box", "http")),
        ("box", ("", "box")),
        ("", ("", "")),
    ],
)
def test_the_parts(text: str, parts: tuple[str, str]) -> None:
    assert split_host_port(text) == parts
