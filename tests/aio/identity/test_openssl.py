"""What OpenSSL can use of certificates and keys in memory, and what not."""

from __future__ import annotations

import ssl

import pytest

from tests.support.pki import Authority
from tunnel.aio.identity.openssl import check_material

AUTHORITY = Authority()


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
