"""When the server's certificate and its authority's are renewed, and that all that was signed before holds on."""

from __future__ import annotations

import fcntl
import os
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.setup import init_state
from cloud_server.trust.ca import CertificateAuthority, key_pem
from cloud_server.trust.renewal import due, renew
from cloud_server.trust.state_files import CA_FILE, SERVER_FILE, SERVER_KEY_FILE
from tests.support.pki import Authority

DAY = timedelta(days=1)


def ec_key_pem() -> bytes:
    return key_pem(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    init_state(tmp_path, ["cloud.example.com", "192.0.2.1", "2001:DB8:0::1"])
    return tmp_path


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + days * DAY


def server_of(state: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((state / SERVER_FILE).read_bytes())


def renewed(state: Path, files: list[str]) -> CertificateAuthority:
    return renew(state, CertificateAuthority.load(state, "longline"), files)


@pytest.mark.parametrize(
    ("days", "files"),
    [
        (0, []),
        (549, []),
        (551, [SERVER_FILE]),
        (900, [SERVER_FILE]),
        (2434, [CA_FILE, SERVER_FILE]),
        (-1, [CA_FILE, SERVER_FILE]),  # made by a clock that was ahead
    ],
)
def test_at_two_thirds_of_a_life(state: Path, days: float, files: list[str]) -> None:
    assert due(state, in_days(days)) == files


def test_a_fresh_certificate_has_a_key_of_its_own_and_the_same_names(state: Path) -> None:
    before, key = server_of(state), (state / SERVER_KEY_FILE).read_bytes()
    renewed(state, [SERVER_FILE])
    after = server_of(state)
    assert after.not_valid_after_utc - datetime.now(UTC) > 824 * DAY
    assert after.serial_number != before.serial_number
    assert (state / SERVER_KEY_FILE).read_bytes() != key
    assert names(after) == names(before)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(state / SERVER_FILE, state / SERVER_KEY_FILE)
    assert due(state) == []


def names(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def test_other_names_in_hosts(state: Path) -> None:
    (state / "hosts").write_text("cloud.example.com\nnew.example.com\n")
    assert due(state) == [SERVER_FILE]
    renewed(state, due(state))
    assert {"cloud.example.com", "new.example.com", "127.0.0.1", "::1", "localhost"} < names(server_of(state))
    assert due(state) == []


@pytest.mark.parametrize("host", ["fe80::1%eth0", "EXAMPLE.com", "2001:DB8::0001", "::ffff:192.0.2.1", "example.com."])
def test_however_a_name_is_spelt_nothing_is_due_once_the_certificate_has_it(state: Path, host: str) -> None:
    (state / "hosts").write_text(f"{host}\n")
    assert due(state) == [SERVER_FILE]
    renewed(state, due(state))
    assert due(state) == []


def test_hosts_that_are_no_text_stop_nothing(state: Path) -> None:
    before = names(server_of(state))
    (state / "hosts").write_bytes(b"b\xfccher.example\n")
    assert due(state) == []
    renewed(state, [SERVER_FILE])
    assert names(server_of(state)) == before


def test_without_hosts_the_names_stay_those_of_the_certificate(state: Path) -> None:
    before = names(server_of(state))
    (state / "hosts").unlink()
    assert due(state) == []
    renewed(state, [SERVER_FILE])
    assert names(server_of(state)) == before


def test_a_missing_certificate_is_made_and_a_strange_one_is_left_alone(state: Path) -> None:
    (state / SERVER_FILE).unlink()
    assert due(state) == [SERVER_FILE]
    foreign = Authority().issue(hosts=["cloud.example.com"], ends_in=-DAY)
    (state / SERVER_FILE).write_bytes(foreign.certificate_pem)
    assert due(state) == []
    (state / SERVER_FILE).write_text("not mine to mend")
    assert due(state) == []
    (state / CA_FILE).unlink()
    assert due(state) == []


@pytest.mark.parametrize("other_key", [None, b"no key", ec_key_pem()])
def test_a_certificate_whose_key_was_not_written_is_made_anew(state: Path, other_key: bytes | None) -> None:
    """They are two files, and a machine may lose its power between them."""
    if other_key is None:
        (state / SERVER_KEY_FILE).unlink()
    else:
        (state / SERVER_KEY_FILE).write_bytes(other_key)
    assert due(state) == [SERVER_FILE]
    renewed(state, [SERVER_FILE])
    assert due(state) == []


def test_a_renewed_authority_vouches_for_what_it_signed_before_and_the_old_one_for_what_it_signs_now(
    state: Path,
) -> None:
    old = CertificateAuthority.load(state, "longline")
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    before = x509.load_pem_x509_certificate(old.issue_agent("box-7", key))
    renewed(state, [CA_FILE])
    new = CertificateAuthority.load(state, "longline")
    assert new.pem != old.pem
    assert new.certificate.not_valid_after_utc >= old.certificate.not_valid_after_utc
    after = x509.load_pem_x509_certificate(new.issue_agent("box-7", key))
    for authority in (old, new):
        for leaf in (before, after):
            leaf.verify_directly_issued_by(authority.certificate)


def test_nothing_outlives_the_authority(state: Path) -> None:
    authority = CertificateAuthority.load(state, "longline")
    issued = x509.load_pem_x509_certificate(authority.issue_join("t", 5000 * DAY, "box-7").certificate_pem)
    assert issued.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_a_name_that_cannot_be_in_a_certificate_is_told(state: Path) -> None:
    (state / "hosts").write_text("b\u00fcro.example.com\n")
    with pytest.raises(ValueError, match="DNSName"):
        renewed(state, [SERVER_FILE])


def test_whoever_renews_waits_for_another_who_does(state: Path) -> None:
    """A key of one and a certificate of another would not fit."""
    before = server_of(state)
    folder = os.open(state, os.O_RDONLY)
    with ThreadPoolExecutor(1) as pool:
        fcntl.flock(folder, fcntl.LOCK_EX)
        renewing = pool.submit(renewed, state, [SERVER_FILE])
        with pytest.raises(TimeoutError):
            renewing.result(0.3)
        assert server_of(state) == before
        os.close(folder)
        renewing.result(30)
    assert server_of(state) != before
