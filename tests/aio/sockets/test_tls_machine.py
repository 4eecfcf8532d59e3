"""tunnel.aio.sockets.tls_machine: two ends joined by nothing but bytes."""

from __future__ import annotations

import ssl

import pytest

from tests.support.pki import Authority
from tunnel.aio.identity.openssl import load_chain
from tunnel.aio.sockets.tls_machine import TlsMachine

AUTHORITY = Authority()


def _pair(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, name: str = "box.example") -> tuple[TlsMachine, TlsMachine]:
    issued = AUTHORITY.issue(hosts=["box.example"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_chain(server, issued.certificate_pem + issued.key_pem)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=AUTHORITY.pem.decode())
    client.minimum_version = client.maximum_version = version
    return TlsMachine(client, server_name=name), TlsMachine(server, server_side=True)


def _joined(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[TlsMachine, TlsMachine]:
    client, server = _pair(version)
    for _ in range(8):
        for one, other in ((client, server), (server, client)):
            one.handshake() if not one.ready else one.open()
            other.receive(one.to_send())
    assert client.ready
    assert server.ready
    return client, server


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_each_direction_ends_on_its_own(version: ssl.TLSVersion) -> None:
    client, server = _joined(version)
    client.seal(b"request")
    client.finish()
    server.receive(client.to_send())
    assert (server.open(), server.open(), server.peer_finished) == (b"request", b"", True)
    server.seal(b"answer")
    server.finish()
    client.receive(server.to_send())
    assert (client.open(), client.open(), client.peer_finished) == (b"answer", b"", True)
    assert client.to_send() == b""


def test_what_came_before_our_own_end_can_still_be_opened() -> None:
    client, server = _joined()
    server.seal(b"early bytes")
    client.receive(server.to_send())
    client.finish()
    room = memoryview(bytearray(6))
    assert (client.open_into(room), bytes(room)) == (6, b"early ")
    assert client.open() == b"bytes"
    server.seal(b"late")
    client.receive(server.to_send())
    assert (client.open_into(room), bytes(room[:4])) == (4, b"late")
    assert client.open_into(room) == 0
    assert not client.peer_finished


def test_what_nobody_reads_is_forgotten() -> None:
    client, server = _joined()
    server.seal(b"early")
    client.receive(server.to_send())
    client.finish()
    client.forget()
    assert client.open() == b""


def test_an_end_without_close_notify_is_a_cut() -> None:
    client, server = _joined()
    server.seal(b"half of it")
    client.receive(server.to_send())
    client.receive_eof()
    assert client.open() == b"half of it"
    with pytest.raises(ssl.SSLError):
        client.open()


def test_bytes_that_were_changed_are_a_fault_and_our_end_is_made_all_the_same() -> None:
    client, server = _joined()
    server.seal(b"secret")
    sealed = bytearray(server.to_send())
    sealed[-1] ^= 1
    client.receive(bytes(sealed))
    with pytest.raises(ssl.SSLError):
        client.finish()
    assert client.to_send()


def test_a_refused_certificate_leaves_an_alert_for_the_other_side() -> None:
    client, server = _pair(name="another.example")
    client.handshake()
    server.receive(client.to_send())
    server.handshake()
    client.receive(server.to_send())
    with pytest.raises(ssl.SSLCertVerificationError):
        client.handshake()
    server.receive(client.to_send())
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        server.handshake()
