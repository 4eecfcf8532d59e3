from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pki import Authority
from tunnel.aio.identity.tls_material import CredentialsUnusable, ServerTls

AUTHORITY = Authority()
LEAF, OTHER = AUTHORITY.issue(hosts=["127.0.0.1"]), AUTHORITY.issue(hosts=["127.0.0.1"])


def test_the_key_is_never_shown() -> None:
    tls = ServerTls(certificate=LEAF.certificate_pem, key=LEAF.key_pem, client_ca=AUTHORITY.pem)
    assert "PRIVATE" not in repr(tls)
    assert "PRIVATE" not in repr(tls.load())


@pytest.mark.parametrize(
    ("certificate", "key", "ca", "said"),
    [
        (LEAF.certificate_pem, OTHER.key_pem, AUTHORITY.pem, "does not belong to"),
        (LEAF.certificate_pem, b"rubbish", AUTHORITY.pem, "no PEM private key"),
        (b"rubbish", LEAF.key_pem, AUTHORITY.pem, "no PEM certificate"),
        (LEAF.certificate_pem, LEAF.key_pem, b"", "no PEM certificate"),
        (Path("/nowhere/leaf.crt"), LEAF.key_pem, AUTHORITY.pem, "cannot read /nowhere/leaf.crt: No such file"),
    ],
)
def test_what_cannot_be_used_is_named(certificate: bytes | Path, key: bytes, ca: bytes, said: str) -> None:
    tls = ServerTls(certificate=certificate, key=key, client_ca=ca)
    with pytest.raises(CredentialsUnusable, match=said):
        tls.load()
