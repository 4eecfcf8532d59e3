"""Makes the packets that go to kube-apiserver."""

from __future__ import annotations

from protos.konnectivity_pb2 import CloseResponse, Data, DialResponse, Packet, PacketType


def dial_response(random: int, *, connect_id: int = 0, error: str = "") -> bytes:
    """Returns the answer to a dial: a connection, or an error that kubectl's user reads."""
    body = DialResponse(random=random, connect_id=connect_id, error=error)
    return Packet(type=PacketType.DIAL_RSP, dial_response=body).SerializeToString()


def data(connect_id: int, payload: bytes) -> bytes:
    """Returns a packet with bytes from the endpoint."""
    return Packet(type=PacketType.DATA, data=Data(connect_id=connect_id, data=payload)).SerializeToString()


def close_response(connect_id: int, error: str = "") -> bytes:
    """Returns the packet that says that a connection is closed. The error reaches only a client that closes it."""
    body = CloseResponse(connect_id=connect_id, error=error)
    return Packet(type=PacketType.CLOSE_RSP, close_response=body).SerializeToString()
