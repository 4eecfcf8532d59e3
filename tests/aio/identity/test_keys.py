"""A key and a request, by the library and by the program, which must be as good."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tunnel.aio.identity.keys import KeysUnavailable, new_key, request_for


class Way:
    """Calls the code under test with the library, or as if it were not there."""

    def __init__(self, *, library: bool) -> None:
        self.library = library

    def new_key(self) -> bytes:
        with self._hidden():
            return new_key()

    def request_for(self, key_pem: bytes) -> bytes:
        with self._hidden():
            return request_for(key_pem)

    @contextlib.contextmanager
    def _hidden(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            names = [name for name in sys.modules if name.split(".")[0] == "cryptography"]
            for name in [] if self.library else names:
                patch.setitem(sys.modules, name, None)  # makes an import of it fail
            yield


@pytest.fixture(params=[True, False], ids=["library", "program"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(library=request.param)


def test_a_request_is_signed_by_the_key_and_asks_for_nothing(way: Way) -> None:
    pem = way.new_key()
    asked = x509.load_der_x509_csr(way.request_for(pem))
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert asked.is_signature_valid
    assert asked.public_key() == key.public_key()
    assert asked.subject.rfc4514_string() == "CN=longline"
    assert len(asked.extensions) == 0


def test_what_is_no_key(way: Way) -> None:
    with pytest.raises(KeysUnavailable):
        way.request_for(b"rubbish")


def test_a_key_that_is_not_ours() -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(KeysUnavailable, match="not one that this program makes"):
        request_for(pem)


def test_without_the_program_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way = Way(library=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KeysUnavailable, match="apt-get install openssl"):
        way.new_key()
    fake = tmp_path / "openssl"
    fake.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
    fake.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    with pytest.raises(KeysUnavailable, match="openssl genpkey failed: it is broken"):
        way.new_key()
