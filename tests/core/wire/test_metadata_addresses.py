"""Metadata and link-local addresses, by every spelling; the C library has the last word on what is an address."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.wire.metadata_addresses import faces, is_metadata, literal_address


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254", "169.254.0.0", "169.254.255.255", "100.100.100.200", "168.63.129.16", "fe80::1", "febf::1",
        "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "64:ff9b:1::169.254.169.254",
        "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1:0:a9:fea9:fe00::", "2002:a9fe:a9fe::1",
        "::ffff:0:169.254.169.254", "2001:0:a9fe:a9fe::1", "2001:0:a00:1:0:0:5601:5601",
    ],
)  # fmt: skip
def test_what_is_one(text: str) -> None:
    assert is_metadata(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "169.253.255.255", "169.255.0.0", "100.100.100.201", "10.0.0.1", "127.0.0.1", "::1", "fec0::1", "fd00:ec2::253",
        "64:ff9b::10.0.0.1", "64:ff9b:1::a00:1", "2002:a00:1::1", "64:ff9b:2::a9fe:a9fe",
        "::ffff:0:10.0.0.1", "2001:0:a00:1:0:0:f5ff:fffe",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    assert not is_metadata(ip_address(text))


def test_the_faces_of_an_address() -> None:
    assert faces(ip_address("10.0.0.1")) == (ip_address("10.0.0.1"),)
    assert faces(ip_address("fd00::1")) == (ip_address("fd00::1"),)
    assert faces(ip_address("64:ff9b::10.0.0.1")) == (ip_address("64:ff9b::a00:1"), ip_address("10.0.0.1"))


HOSTS = [
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0XA9FEA9FE", "0251.0376.0251.0376", "169.254.43518", "169.16689662",
    "0xa9.254.0251.254", "0", "00000", "0x", "08", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "1.2.65536", "4294967296",
    "1..2", "1.", "a", "0xg", "-1", "1_0", "127.1",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_addresses_are_what_the_c_library_takes_for_them(host: str) -> None:
    try:
        expected = ip_address(socket.inet_aton(host))
    except OSError:
        expected = None
    assert host.endswith(".") or literal_address(host) == expected


@given(st.text("0123456789abcdefxX.", min_size=1, max_size=16))
def test_whatever_is_typed(host: str) -> None:
    try:
        expected = ip_address(socket.inet_aton(host))
    except OSError:
        return
    assert literal_address(host) == expected


def test_ipv6_and_names() -> None:
    assert literal_address("fe80::1%eth0") == ip_address("fe80::1")
    assert literal_address("::ffff:1.2.3.4") == ip_address("1.2.3.4")
    assert literal_address("169.254.169.254.") == ip_address("169.254.169.254")
    assert literal_address("a:b") is None
    assert literal_address("db.example.com") is None
    assert literal_address("") is None


@pytest.mark.parametrize("digit", ["1", "7", "0", "0x1", "0xf"])
def test_many_digits_are_no_address_and_no_fault(digit: str) -> None:
    host = digit + digit[-1] * 5000
    assert literal_address(host) == (ip_address("0.0.0.0") if digit == "0" else None)


def test_leading_zeros_say_nothing() -> None:
    assert literal_address("0" * 5000 + "251.0376.0251.0376") == ip_address("169.254.169.254")
    assert literal_address("0x" + "0" * 5000 + "7f000001") == ip_address("127.0.0.1")
