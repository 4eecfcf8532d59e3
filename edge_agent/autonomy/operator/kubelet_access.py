"""Reaches the kubelet of this node as an API server does, and vouches for itself when the kubelet asks who that is.

A kubelet asks the API server whose a token is (TokenReview) and what its owner may (SubjectAccessReview), and so it
asks here. The agent comes with a token that it made in this process and shows to nobody else, and answers both
questions about that one, whether the cloud is there or not; all others are the API server's. So nothing has to be set
up on the node, and nobody gets a credential of the cluster.

The token is shown only to a process of root: anybody could listen on the port while there is no kubelet.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import ssl
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from edge_agent.autonomy.upward.lines import Lines
from tunnel.aio.http.http1 import Request
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tls_client import dial_tls
from tunnel.kubeapi.encoding import decode
from tunnel.kubeapi.protobuf import MEDIA_TYPE, decode_object
from tunnel.kubeapi.request_info import RequestInfo
from tunnel.kubeapi.status import Json

HANDSHAKE_S = 5.0
VERBS = ("get", "create")
"""What it may do at the kubelet: read, and what is sent by POST, such as exec. What of that the operator may do is
decided before the kubelet is asked.
"""
_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED = "01"
_MAPPED = "0000000000000000FFFF0000"
"""What an address of IPv4 begins with in the second of these."""

_calls = BlockingCalls("tables of sockets", threads=1)


class KubeletAccess:
    """The way to the kubelet."""

    def __init__(self, address: ServerAddress) -> None:
        """Dials nothing yet. `address` is the kubelet's, on loopback."""
        self.address = address
        self.lines = Lines(self._dial)
        self._token = secrets.token_urlsafe(32)
        self._user = f"longline:operator:{secrets.token_hex(8)}"
        """As whom the kubelet knows the agent: nobody whom the cluster could have."""

    def credentials(self) -> tuple[str, str]:
        """Returns the header that the kubelet knows the agent by."""
        return "authorization", f"Bearer {self._token}"

    def review(self, info: RequestInfo, request: Request, body: bytes) -> Json | None:
        """Returns the answer to a question of the kubelet's about the agent; None for any other question."""
        try:
            is_protobuf = (request.headers.get("content-type") or "").startswith(MEDIA_TYPE)
            asked = decode_object(body) if is_protobuf else decode(body)
        except ValueError:
            return None
        spec = asked.get("spec") if isinstance(asked, dict) else None
        if not isinstance(spec, dict):
            return None
        if info.resource == "tokenreviews":
            return self._vouched(str(spec.get("token")))
        return _judged(spec) if spec.get("user") == self._user else None

    # Internal

    def _vouched(self, token: str) -> Json | None:
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode()):
            return None
        return {
            "kind": "TokenReview",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {},
            "spec": {"token": token},
            "status": {"authenticated": True, "user": {"username": self._user}},
        }

    async def _dial(self, *, http2: bool) -> Conn:  # noqa: ARG002 - it is asked for what may be switched
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # a kubelet signs its own by default; who it is, the kernel says
        context.set_alpn_protocols(["http/1.1"])
        address = self.address
        conn = await dial_tls(address.host, address.port, context, handshake_timeout_s=HANDSHAKE_S)
        here, there = (conn.transport.get_extra_info(name) for name in ("sockname", "peername"))
        try:
            owner = await _calls.run(partial(owner_of, there, here))
        except NotAnswering as error:
            owner, text = None, str(error)
        else:
            text = f"what listens at {address} is no process of root ({owner}), as a kubelet is"
        if owner != 0:
            conn.reset()
            raise PermissionError(text)
        return conn


def owner_of(local: tuple[str, int], remote: tuple[str, int], tables: tuple[Path, ...] = _TABLES) -> int | None:
    """Returns the user that has the other end of a connection on this machine; None when there is none. Blocks.

    Args:
        local: its address there.
        remote: its address on this side.
        tables: the kernel's lists of connections.
    """
    wanted = {f"{a} {b}" for a, b in zip(_forms(local), _forms(remote), strict=True)}
    for table in tables:
        for line in _lines(table):
            columns = line.split()
            if len(columns) > 7 and columns[3] == _ESTABLISHED and f"{columns[1]} {columns[2]}" in wanted:
                return int(columns[7])
    return None


# Internal


def _judged(spec: Json) -> Json:
    """Returns the answer to the question whether the agent may do something."""
    wanted = spec.get("resourceAttributes")
    about = wanted if isinstance(wanted, dict) else {}
    resource = about.get("group", ""), about.get("resource"), about.get("subresource")
    return {
        "kind": "SubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": spec,
        "status": {"allowed": about.get("verb") in VERBS and resource == ("", "nodes", "proxy")},
    }


def _forms(address: tuple[str, int]) -> list[str]:
    """Returns an address as the kernel's lists have it, for either version of IP."""
    packed = ipaddress.ip_address(address[0]).packed
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    text = "".join((word[::-1] if sys.byteorder == "little" else word).hex() for word in words).upper()
    port = f"{address[1]:04X}"
    return [f"{text}:{port}", f"{_MAPPED}{text}:{port}"]


def _lines(table: Path) -> Iterator[str]:
    try:
        yield from table.read_text().splitlines()[1:]
    except OSError:
        return
