"""The three gRPC methods of protos/tunnel.proto, and the one header beside them; nothing else is answered."""

from __future__ import annotations

from typing import Final

CONNECT: Final = "/longline.v1.Tunnel/Connect"
JOIN: Final = "/longline.v1.Enrollment/Join"
RENEW: Final = "/longline.v1.Enrollment/Renew"

ACCEPTED: Final = ("longline-accepted", "1")
"""First header of an accepted Connect. A refusal has headers too, and its status may arrive a moment after them."""
