"""Targets and Hosts of requests that no server takes, and those that it must."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.duplex_pair import duplex_pair
from tunnel.aio.http.http1 import ServerConnection
from tunnel.aio.http.request_target import check_host, check_target


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/metrics?name[]=up&name[]=down"),
        ("GET", "http://127.0.0.1:9090/metrics"),
        ("GET", "HTTPS://[::1]:443"),
        ("GET", "http://user-less.example/a%20b?c=%C3%A9"),
        ("OPTIONS", "*"),
        ("CONNECT", "[::1]:whatever"),
    ],
)
def test_what_http_allows_is_taken(method: str, target: str) -> None:
    check_target(method, target)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://[", "no host"),
        ("http://", "no host"),
        ("http://a@b/", "no host"),
        ("http://x:99999/", "no host"),
        ("ftp://x/", "neither a path"),
        ("box-7:22", "neither a path"),
        ("*", "neither a path"),
        ("/a%zz", "path is not encoded"),
        ("/a%", "path is not encoded"),
        ("/a#b", "path is not encoded"),
        ("/a?b=100%", "query is not encoded"),
        ("/a%ff", "path is not UTF-8"),
        ("/exec?command=caf%E9", "query is not UTF-8"),
        ("/a b", "characters that must be encoded"),
        ("/\xe9", "characters that must be encoded"),
        ("", "characters that must be encoded"),
    ],
)
def test_anything_else_is_refused_without_being_repeated(target: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        check_target("GET", target)
    assert len(target) < 4 or target not in str(caught.value)


@pytest.mark.parametrize("host", ["", "x", "x:80", "[::1]:80", "[fe80::1%25eth0]", "_srv.x"])
def test_hosts(host: str) -> None:
    check_host(host)


@pytest.mark.parametrize("host", ["[", "a b", "x:y", "x:65536", "a@b", "[::1", "x/y"])
def test_no_hosts(host: str) -> None:
    with pytest.raises(ValueError, match="Host"):
        check_host(host)


@pytest.mark.parametrize("head", ["GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: [\r\n\r\n"])
async def test_a_server_answers_400_with_a_code_and_ends(head: str) -> None:
    near, far = duplex_pair()
    await near.write(head.encode())
    async with asyncio.timeout(10):
        assert await ServerConnection(far).next_request() is None
    answer = await near.read() + await near.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer.lower()
    assert b"LL6025: " in answer
