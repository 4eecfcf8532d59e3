"""The three gRPC methods of protos/tunnel.proto; nothing else is answered."""

from __future__ import annotations

from typing import Final

CONNECT: Final = "/longline.v1.Tunnel/Connect"
JOIN: Final = "/longline.v1.Enrollment/Join"
RENEW: Final = "/longline.v1.Enrollment/Renew"
