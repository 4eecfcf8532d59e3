from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.support.pki import Authority, Issued
from tunnel.aio.identity.tls_material import CredentialsUnusable, ServerTls
from tunnel.aio.sockets.tls_context import anonymous_context, server_context


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue(hosts=["127.0.0.1"])


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[dict[str, object], ssl.SSLObject]:
    """Join both in memory; returns the client's certificate as the server sees it, and the client's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    far = server.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for end in (near, far):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue
        if len(done) == 2:
            return dict(far.getpeercert() or {}), near
    raise AssertionError("the handshake does not end")


def client(authority: Authority, folder: Path, certificate: Issued | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if certificate is not None:
        context.load_cert_chain(*certificate.write(folder, "client"))
    return context


def asking(authority: Authority, issued: Issued) -> ssl.SSLContext:
    return server_context(
        ServerTls(certificate=issued.certificate_pem, key=issued.key_pem, client_ca=authority.pem).load()
    )


def test_a_certificate_is_asked_for_and_may_be_missing(authority: Authority, issued: Issued, tmp_path: Path) -> None:
    server = asking(authority, issued)
    known = authority.issue(uris=["spiffe://longline/user/ann"])
    assert "subjectAltName" in handshake(server, client(authority, tmp_path, known))[0]
    assert handshake(server, client(authority, tmp_path))[0] == {}


def test_a_foreign_certificate_is_refused(authority: Authority, issued: Issued, tmp_path: Path) -> None:
    foreign = Authority("another").issue(uris=["spiffe://longline/user/ann"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(asking(authority, issued), client(authority, tmp_path, foreign))


def test_where_none_is_asked_for_a_foreign_one_is_not_sent(
    authority: Authority, issued: Issued, tmp_path: Path
) -> None:
    path = tmp_path / "all.pem"
    path.write_bytes(issued.certificate_pem + issued.key_pem)
    foreign = Authority("another").issue(uris=["spiffe://longline/user/ann"])
    assert handshake(anonymous_context(path), client(authority, tmp_path, foreign))[0] == {}


def test_old_versions_are_refused(authority: Authority, issued: Issued) -> None:
    assert asking(authority, issued).minimum_version is ssl.TLSVersion.TLSv1_2


def test_material_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "all.pem").write_text("nothing")
    for path in (tmp_path / "all.pem", tmp_path / "missing.pem"):
        with pytest.raises(CredentialsUnusable, match=path.name):
            anonymous_context(path)


def test_material_that_does_not_fit_is_told(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.issue(), authority.issue()
    with pytest.raises(CredentialsUnusable, match="does not belong"):
        server_context(ServerTls(certificate=one.certificate_pem, key=other.key_pem, client_ca=authority.pem).load())
    with pytest.raises(CredentialsUnusable, match="cannot read"):
        server_context(ServerTls(certificate=tmp_path / "no.crt", key=one.key_pem, client_ca=authority.pem).load())
