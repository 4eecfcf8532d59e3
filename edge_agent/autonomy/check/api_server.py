"""Asks the API server as the kubelet does: whether it is reached, what time it is there, which images pods want."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge_agent.autonomy.check.findings import Finding, fault, good, warning
from edge_agent.autonomy.upward.dialling import ApiServer
from tunnel.aio.http.http1 import MAX_LONG_HEAD_BYTES, ClientConnection, Response
from tunnel.aio.identity.clock import clock_fault
from tunnel.aio.identity.tls_material import CredentialsUnusable
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.spoken import spoken_s
from tunnel.kubeapi.encoding import decode

ANSWER_S = 15.0
"""Seconds for the connection and each answer: a list of a hundred pods comes over a slow uplink as well."""
MAX_PODS_BYTES = 64 * 1024 * 1024
MAX_NAMED = 10
"""How many containers are named; the rest is counted."""
RTC = Path("/sys/class/rtc")


@dataclass(frozen=True, slots=True)
class Hop:
    """A `[[listen]]` of this box that leads to the API server."""

    listen: str
    target: str


async def api_server(server: ApiServer, node: str, hop: Hop | None) -> AsyncIterator[Finding]:
    """Yields what the API server is found to be, as the node.

    Args:
        server: where it is, and the node's files.
        node: the name of the node.
        hop: the way through the tunnel; None when it is dialled directly.
    """
    where = (
        f"{server.address}, dialled directly"
        if hop is None
        else f"{hop.target} through the tunnel ([[listen]] {hop.listen})"
    )
    try:
        async with asyncio.timeout(ANSWER_S):
            conn = await server.dial(as_node=True)
    except (OSError, CredentialsUnusable) as error:  # TimeoutError is one
        yield fault("API server", f"no way to {where}: {_words(error)}", _remedy(error, hop))
        return
    try:
        http = ClientConnection(conn, MAX_LONG_HEAD_BYTES)
        head, _ = await _get(http, server, "/readyz")
        yield _ready(head, where)
        yield clock(head.headers.get("date"))
        target = f"/api/v1/pods?fieldSelector={quote(f'spec.nodeName={node}', safe='')}"
        head, body = await _get(http, server, target)
        for finding in pods(node, head.status, body):
            yield finding
    except (TimeoutError, StreamError) as error:
        yield fault(
            "API server", f"{where} does not answer: {_words(error)}", "see whether it is well: kubectl get nodes"
        )
    finally:
        conn.close()


def clock(said: str | None, now: datetime | None = None) -> Finding:
    """Returns how this machine's clock is beside the API server's. `said` is the `Date` of its answer; None: none."""
    try:
        theirs = parsedate_to_datetime(said or "")
    except ValueError:
        return warning("clock", "the API server does not say what time it is", "look at this machine's clock yourself")
    if wrong := clock_fault((now or datetime.now(UTC)) - theirs):
        return warning("clock", wrong, "certificates and tokens seem to have run out where the clock is wrong")
    return good("clock", "it says what the API server's says")


def hardware_clock(folder: Path = RTC) -> Iterator[Finding]:
    """Yields a warning where nothing keeps the time while the machine is off. Blocks."""
    try:
        has_one = any(folder.iterdir())
    except OSError:
        has_one = False
    if not has_one:
        text = (
            "this machine has no clock that runs while it is off: it boots with the time of its last shutdown, or 1970"
        )
        remedy = "the node works then, and its logs and events have wrong times until NTP answers; fake-hwclock helps"
        yield warning("clock", text, remedy)


def pods(node: str, status: int, body: bytes) -> Iterator[Finding]:
    """Yields what the node's pods need of the cloud, given the answer to the question which they are."""
    if status != 200:
        text = f"the API server answers {status} to the list of the pods of {node or 'this node'}"
        yield fault("API server", text, "see whose certificate [autonomy] client_cert is: the node's own may ask that")
        return
    try:
        listed: Any = decode(body)
        items = listed["items"] or []
        pulled = [text for pod in items for text in _always_pulled(pod)]
    except (ValueError, KeyError, TypeError, AttributeError):
        yield warning("images", "the list of the node's pods cannot be read", "report this as a fault")
        return
    if not pulled:
        yield good("images", f"none of the node's {len(items)} pods must pull its image to start again")
        return
    more = f" and {len(pulled) - MAX_NAMED} more" if len(pulled) > MAX_NAMED else ""
    text = f"imagePullPolicy Always: {', '.join(pulled[:MAX_NAMED])}{more}"
    yield warning("images", text, "they do not start again without their registry: name a version, with IfNotPresent")


# Internal


async def _get(http: ClientConnection, server: ApiServer, target: str) -> tuple[Response, bytes]:
    headers = [("host", str(server.address)), ("user-agent", "longline"), ("accept", "application/json")]
    async with asyncio.timeout(ANSWER_S):
        head = await http.request("GET", target, headers)
        return head, await http.read_body(MAX_PODS_BYTES)


def _ready(head: Response, where: str) -> Finding:
    if head.status == 200:
        return good("API server", f"{where} answers the kubelet's certificate")
    if head.status in (401, 403):
        text = f"{where} answers {head.status} to the kubelet's certificate"
        return fault("API server", text, "see that the certificate is good, and of this cluster")
    return warning(
        "API server", f"{where} answers {head.status}: it is not ready", "see what it lacks: /readyz?verbose"
    )


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {spoken_s(ANSWER_S)}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    return str(error) or type(error).__name__


def _remedy(error: BaseException, hop: Hop | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "see that [autonomy] ca is the cluster's, and that the certificate names the address of `server`"
    if isinstance(error, CredentialsUnusable | ssl.SSLError):
        return "see that the kubelet's certificate is of this cluster"
    if hop is not None:
        return "see that the agent runs and has its link (edge-agent status), and that the server exposes the target"
    return "see that [autonomy] server is right, and reached from here"


def _always_pulled(pod: Any) -> Iterator[str]:
    """Yields the containers of a pod whose image is asked for at each start."""
    metadata, spec = pod["metadata"], pod["spec"]
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        image = str(container.get("image", ""))
        policy = container.get("imagePullPolicy") or ("Always" if _is_latest(image) else "IfNotPresent")
        if policy == "Always":
            yield f"{metadata['namespace']}/{metadata['name']} {container['name']} ({image})"


def _is_latest(image: str) -> bool:
    """Returns whether an image names no version, which Kubernetes takes for `Always` where no policy is said."""
    name = image.rpartition("/")[2]
    return "@" not in image and (name.endswith(":latest") or ":" not in name)
