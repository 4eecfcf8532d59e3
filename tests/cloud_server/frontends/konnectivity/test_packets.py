"""Bytes as they were captured from konnectivity's own programs."""

from __future__ import annotations

from cloud_server.frontends.konnectivity import packets
from protos.konnectivity_pb2 import Packet, PacketType
from tests.support.konnectivity_client import DIAL_EXAMPLE


def test_a_dial_of_kube_apiserver() -> None:
    packet = Packet.FromString(DIAL_EXAMPLE)
    assert packet.type == PacketType.DIAL_REQ
    dial = packet.dial_request
    assert (dial.protocol, dial.address, dial.random) == ("tcp", "10.1.2.3:10250", 4690001353539750355)


def test_a_close_of_kube_apiserver() -> None:
    packet = Packet.FromString(bytes.fromhex("08022a020807"))
    assert packet.type == PacketType.CLOSE_REQ
    assert packet.close_request.connect_id == 7


def test_what_goes_out() -> None:
    assert packets.dial_response(4242, connect_id=1).hex() == "08011a051001189221"
    assert packets.data(7, b"hello").hex() == "0804220908071a0568656c6c6f"
    assert packets.close_response(1).hex() == "080332021001"


def test_errors() -> None:
    assert Packet.FromString(packets.dial_response(5, error="refused")).dial_response.error == "refused"
    assert Packet.FromString(packets.close_response(5, "reset")).close_response.error == "reset"
