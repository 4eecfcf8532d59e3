"""The certificate of the proxy is made once, and anew with the same key when the proxy has another address."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.autonomy.serving import CERTIFICATE, KEY, serving_context
from tests.support.pki import Authority
from tunnel.aio.identity.certificate import Certificate, read_pem

CLIENTS = Authority().pem


def served(folder: Path, *hosts: str) -> Certificate:
    serving_context(folder, "API proxy of box-7", ["127.0.0.1", *hosts], CLIENTS, ["http/1.1"])
    return read_pem((folder / CERTIFICATE).read_bytes())[0]


def test_it_is_made_once(tmp_path: Path) -> None:
    first = served(tmp_path, "169.254.64.40")
    assert first.hosts == {"127.0.0.1", "169.254.64.40"}
    assert served(tmp_path, "169.254.64.40") == served(tmp_path) == first


def test_another_address_changes_neither_key_nor_name(tmp_path: Path) -> None:
    first = served(tmp_path)
    second = served(tmp_path, "fd00::1", "node-7")
    assert second.hosts == {"127.0.0.1", "fd00::1", "node-7"}
    assert (second.spki_der, second.subject_der) == (first.spki_der, first.subject_der)
    assert first.is_authority


@pytest.mark.parametrize("file", [CERTIFICATE, KEY])
def test_one_that_cannot_be_read_is_made_anew(tmp_path: Path, file: str) -> None:
    first = served(tmp_path)
    (tmp_path / file).write_text("rubbish")
    assert served(tmp_path).spki_der != first.spki_der
