from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pki import Authority
from tunnel.aio.carriers.credentials import channel_credentials, server_credentials
from tunnel.aio.identity.tls_material import ClientTls, CredentialsUnusable, ServerTls

AUTHORITY = Authority()
LEAF, OTHER = AUTHORITY.issue(hosts=["127.0.0.1"]), AUTHORITY.issue(hosts=["127.0.0.1"])


def test_pem_and_files_load_alike(tmp_path: Path) -> None:
    certificate, key = LEAF.write(tmp_path, "leaf")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(AUTHORITY.pem)
    from_files = ClientTls(certificate=certificate, key=key, ca=ca).load()
    assert from_files == ClientTls(certificate=LEAF.certificate_pem, key=LEAF.key_pem, ca=AUTHORITY.pem).load()
    assert channel_credentials(from_files) is not None


def test_a_server_does_not_start_with_what_cannot_be_used() -> None:
    with pytest.raises(CredentialsUnusable, match="does not belong to"):
        server_credentials(ServerTls(certificate=LEAF.certificate_pem, key=OTHER.key_pem, client_ca=AUTHORITY.pem))
