"""Certificates through `ssl` alone say what the X.509 library says."""

from __future__ import annotations

import datetime as dt
import ssl

import pytest
from cryptography import x509

from tests.support.pki import Authority
from tunnel.aio.identity.openssl import check_material, read_own

AUTHORITY = Authority()
NAME = "spiffe://longline/agent/box-7"
DAY = dt.timedelta(days=1)


@pytest.mark.parametrize("ends_in", [DAY, -DAY], ids=["good", "run out"])
def test_our_own_certificate_is_read(ends_in: dt.timedelta) -> None:
    issued = AUTHORITY.issue(uris=[NAME], hosts=["box.example"], ends_in=ends_in)
    seen = read_own(issued.certificate_pem, issued.key_pem)
    known = x509.load_pem_x509_certificate(issued.certificate_pem)
    assert seen.uris == (NAME,)
    assert seen.validity.not_before == known.not_valid_before_utc
    assert seen.validity.not_after == known.not_valid_after_utc


def test_what_does_not_fit_is_refused() -> None:
    one, other = AUTHORITY.issue(), AUTHORITY.issue()
    check_material(one.certificate_pem, one.key_pem, AUTHORITY.pem)
    for material in (
        (one.certificate_pem, other.key_pem, AUTHORITY.pem),
        (one.certificate_pem, b"rubbish", AUTHORITY.pem),
        (b"rubbish", one.key_pem, AUTHORITY.pem),
        (one.certificate_pem, one.key_pem, b"rubbish"),
        (one.certificate_pem, one.key_pem, b""),
    ):
        with pytest.raises((ssl.SSLError, ValueError)):
            check_material(*material)
