"""Reaches the kubelet of this node as an API server does, and vouches for itself when the kubelet asks who that is.

A kubelet asks the API server whose a token is (TokenReview) and what its owner may (SubjectAccessReview), and so it
asks here. The agent comes with a token that it made in this process and shows to nobody else, and answers both
questions about that one, whether the cloud is there or not; all others are the API server's. So nothing has to be set
up on the node, and nobody gets a credential of the cluster.

The token is shown only to the kubelet, which the kernel tells by its socket: anybody could listen on the port while
there is none, and a pod with the node's network as root, too.
"""

from __future__ import annotations

import hmac
import secrets
import ssl
from functools import partial
from pathlib import Path

from edge_agent.autonomy.upward.lines import Lines
from tunnel.aio.http.http1 import Request
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tcp_owner import owner_of
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
_calls = BlockingCalls("owners of sockets")


class KubeletAccess:
    """The way to the kubelet."""

    def __init__(self, address: ServerAddress, cgroup: Path) -> None:
        """Dials nothing yet.

        Args:
            address: the kubelet's, on loopback.
            cgroup: the folder of the cgroup (version 2) of its service.
        """
        self.address = address
        self._cgroup = cgroup
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
        here, there = (conn.transport.get_extra_info(name)[:2] for name in ("sockname", "peername"))
        try:
            doubt = await _calls.run(partial(_doubt, there, here, self._cgroup))
        except NotAnswering as error:
            doubt = str(error)
        if doubt:
            conn.reset()
            raise PermissionError(f"what listens at {address} is not taken for the kubelet: {doubt}")
        return conn


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


def _doubt(there: tuple[str, int], here: tuple[str, int], cgroup: Path) -> str:
    """Returns why the other end of a connection is not the kubelet's; empty when it is. Blocks.

    A kubelet that listens for both versions of IP has its end of IPv4 as one of IPv6.
    """
    try:
        owner = owner_of(there, here)
        if owner is None and ":" not in there[0]:
            owner = owner_of((f"::ffff:{there[0]}", there[1]), (f"::ffff:{here[0]}", here[1]))
        wanted = cgroup.stat().st_ino
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or 'the kernel'}: {error.strerror}"
    if owner is None or owner.uid != 0:
        return "it is no process of root"
    if owner.cgroup is None:
        return "the kernel knows no cgroups of sockets (Linux 5.8, and version 2 of cgroups)"
    return "" if owner.cgroup == wanted else f"it is root's, and not in the cgroup autonomy.kubelet_cgroup = {cgroup}"
