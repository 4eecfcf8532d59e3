"""The choice of a proxy, beside what curl does with the same environment."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.support.waits import scaled_s
from tunnel.aio.sockets.http_proxy import HttpProxy, ProxyUnusable, is_exception, parse_proxy, proxy_for

PROXY = "http://10.0.0.1:3128"
HOST = "cloud.example.com"

ENVIRONMENTS: list[tuple[dict[str, str], str | None]] = [
    ({}, None),
    ({"https_proxy": PROXY}, "https_proxy"),
    ({"HTTPS_PROXY": PROXY}, "HTTPS_PROXY"),
    ({"all_proxy": PROXY}, "all_proxy"),
    ({"ALL_PROXY": PROXY}, "ALL_PROXY"),
    ({"http_proxy": PROXY}, None),
    ({"HTTP_PROXY": PROXY}, None),
    ({"grpc_proxy": PROXY}, None),
    ({"https_proxy": "", "HTTPS_PROXY": PROXY}, "HTTPS_PROXY"),
    ({"https_proxy": "", "all_proxy": PROXY}, "all_proxy"),
    ({"https_proxy": PROXY, "no_proxy": "", "NO_PROXY": HOST}, None),
    ({"https_proxy": PROXY, "no_proxy": "x", "NO_PROXY": HOST}, "https_proxy"),
]
"""Each leads to the variable that is used."""

EXCEPTIONS: list[tuple[str, str, bool]] = [
    ("example.com", "*", True),
    ("example.com", "*,x", False),
    ("example.com", " * ", False),
    ("example.com", "example.com", True),
    ("a.example.com", "example.com", True),
    ("a.example.com", ".example.com", True),
    ("example.com", ".example.com", True),
    ("notexample.com", "example.com", False),
    ("a.example.com", "*.example.com", False),
    ("example.com", "EXAMPLE.com", True),
    ("EXAMPLE.com", "example.com", True),
    ("example.com.", "example.com", True),
    ("example.com", "example.com.", True),
    ("example.com", "a,example.com", True),
    ("example.com", "a example.com", True),
    ("example.com", " , example.com ,", True),
    ("example.com", "example.com:443", False),
    ("example.com", ".", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("10.1.2.3", "10.0.0.0/8", True),
    ("10.1.2.3", "10.1.3.0/24", False),
    ("10.1.2.3", "10.0.0.0/33", False),
    ("10.1.2.3", "10.1", False),
    ("10.1.2.3", "2.3", False),
    ("2001:db8::5", "2001:db8::5", True),
    ("2001:db8::5", "2001:db8::6", False),
]
LIKE_CURL_SINCE: list[tuple[str, str]] = [
    ("2001:db8::5", "2001:db8::/32"),
    ("::1", "[::1]"),
    ("2001:db8::5", "2001:db8:0::5"),
    ("10.1.2.3", "0.0.0.0/0"),
]
"""Exceptions that curl 7.88 does not see, though they stand in its documentation or can mean nothing else."""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.mark.parametrize(("environment", "used"), ENVIRONMENTS)
def test_variables(environment: dict[str, str], used: str | None) -> None:
    proxy = proxy_for(HOST, None, "", environment)
    assert (proxy.source if proxy is not None else None) == used


@pytest.mark.parametrize(("host", "exceptions", "excepted"), EXCEPTIONS)
def test_exceptions(host: str, exceptions: str, excepted: bool) -> None:
    assert is_exception(host, exceptions) is excepted


@pytest.mark.parametrize(("host", "exceptions"), LIKE_CURL_SINCE)
def test_more_exceptions(host: str, exceptions: str) -> None:
    assert is_exception(host, exceptions)


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "password"),
    [
        ("http://10.0.0.1:3128", "10.0.0.1", 3128, None, ""),
        ("10.0.0.1:3128", "10.0.0.1", 3128, None, ""),
        ("proxy.example.com", "proxy.example.com", 1080, None, ""),
        ("HTTP://proxy:1/", "proxy", 1, None, ""),
        ("http://[2001:db8::1]:3128", "2001:db8::1", 3128, None, ""),
        ("http://me:p%40ss@proxy:1", "proxy", 1, "me", "p@ss"),
        ("http://me@proxy:1", "proxy", 1, "me", ""),
    ],
)
def test_urls(url: str, host: str, port: int, user: str | None, password: str) -> None:
    proxy = parse_proxy(url, "x")
    assert (proxy.host, proxy.port, proxy.user, proxy.password) == (host, port, user, password)
    assert parse_proxy(proxy.url, "x") == proxy
    assert password == "" or password not in f"{proxy} {proxy!r}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("socks5://me:secret@h:1", "HTTPS_PROXY names a SOCKS proxy (socks5://)"),
        ("socks5h://me:secret@h:1", "HTTPS_PROXY names a SOCKS proxy (socks5h://)"),
        ("https://me:secret@h:1", "HTTPS_PROXY names a proxy behind TLS"),
        ("ftp://me:secret@h:1", "HTTPS_PROXY names a proxy of a kind that is not known (ftp://)"),
        ("http://me:secret@h:x", "HTTPS_PROXY is no proxy"),
        ("http://me:secret@h:0", "HTTPS_PROXY is no proxy"),
        ("http://me:secret@:1", "HTTPS_PROXY is no proxy"),
        ("http://me:secret@a b:1", "HTTPS_PROXY is no proxy"),
        ("http://me:secret@[::1:1", "HTTPS_PROXY is no proxy"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_names_the_variable(url: str, said: str) -> None:
    with pytest.raises(ProxyUnusable) as caught:
        proxy_for(HOST, None, "", {"HTTPS_PROXY": url})
    assert str(caught.value).startswith(said)
    assert "secret" not in str(caught.value)
    assert proxy_for(HOST, None, "", {"HTTPS_PROXY": url, "no_proxy": "*"}) is None, "it would not be used"
    assert proxy_for(HOST, "none", "", {"HTTPS_PROXY": url}) is None


def test_what_is_asked_and_answered() -> None:
    proxy = HttpProxy(host="p", port=1, user="me", password="s", source="x")
    assert proxy.request("2001:db8::1", 443) == (
        b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\nProxy-Authorization: Basic bWU6cw==\r\n\r\n"
    )
    assert proxy.refusal(b"HTTP/1.1 200 Connection established\r\n\r\n", "h", 1) is None
    assert proxy.refusal(b"HTTP/1.0 200\r\n\r\n", "h", 1) is None
    assert proxy.refusal(b"HTTP/1.1 502 \x1b[31mno\r\n\r\n", "h", 1) == (
        "the proxy p:1 (from x) refuses CONNECT h:1: 502 ?no"
    )


# Beside curl


class Counting:
    """A proxy that refuses, and counts who came."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                if connection.recv(65536):
                    self.asked += 1
                    connection.sendall(b"HTTP/1.1 503 no\r\n\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(scaled_s(5))


@pytest.fixture(scope="module")
def counting() -> Iterator[Counting]:
    made = Counting()
    yield made
    made.close()


def curl_asks(counting: Counting, host: str, environment: dict[str, str]) -> bool:
    """Whether curl goes through the proxy to a host; where it does not, it finds nobody on this machine."""
    before = counting.asked
    name = host.rstrip(".") if re.search(r"[a-z]", host, re.IGNORECASE) and ":" not in host else "unused"
    shown = f"[{host}]" if ":" in host else host
    words = ["curl", "-gsk", "--max-time", "2", "--resolve", f"{name}:1:127.0.0.1", f"https://{shown}:1/"]
    if not re.search(r"[a-z]", host, re.IGNORECASE) or ":" in host:
        words += ["--connect-timeout", "0.2"]
    subprocess.run(words, env=environment, capture_output=True, timeout=scaled_s(10))
    return counting.asked > before


@needs_curl
def test_curl_chooses_by_the_same_variables(counting: Counting) -> None:
    for environment, used in ENVIRONMENTS:
        own = {name: value.replace(PROXY, counting.url) for name, value in environment.items()}
        assert curl_asks(counting, HOST, own) is (used is not None), environment


@needs_curl
def test_curl_sees_the_same_exceptions(counting: Counting) -> None:
    for host, exceptions, excepted in EXCEPTIONS:
        environment = {"https_proxy": counting.url, "no_proxy": exceptions}
        assert curl_asks(counting, host, environment) is not excepted, (host, exceptions)
