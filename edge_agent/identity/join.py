"""Joins a box to a cloud server: makes a key here, gets a certificate for it there, writes a first configuration."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge_agent.identity.certificates import Answer, check_answer
from edge_agent.identity.certificates import replace as replace_identity
from edge_agent.identity.identity import Identity
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier_errors import CarrierLost, EnrollmentRefused
from tunnel.aio.carriers.channel import DialOptions
from tunnel.aio.carriers.enrollment import call_join
from tunnel.aio.identity.clock import clock_fault
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.keys import KeysUnavailable, new_key, request_for
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.aio.identity.validity import clock_says, date
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.process.files import PUBLIC, SECRET, check_writable, make_folder, write_atomic
from tunnel.aio.sockets.http_proxy import HttpProxy, ProxyUnusable
from tunnel.core.wire.faults import NOT_A_LONGLINE_SERVER, STATE_NOT_WRITABLE, TOO_MANY_CLIENTS, FaultError

TIMEOUT_S = 20.0
ASK_FOR_S = 60.0
"""For how many seconds the box asks again when too many join at once: the server answers thousands of boxes in that."""
LEAST_PAUSE_S = 1.0
"""Seconds between two times that it asks at least, whatever the server says."""

_CONFIG = """\
# What this box's edge-agent does. Check a change with: edge-agent check --config FILE

[cloud]
servers = ["{server}"]
{proxy}
# What may be reached through this box: nothing, unless it is listed. host:ports; a host is an address, a CIDR or a DNS
# name, ports are 22, 80,443, 8000-8999 or *.
# [[allow]]
# target = "127.0.0.1:22"

# The box as a node for kubectl: a shell, logs of systemd units, log files. exec needs the agent to run as root, or as
# the same user.
# [host]
# exec = true
# user = "root"
# units = ["nginx.service"]
# files = ["/var/log/app.log"]
"""


class JoinFailed(FaultError):
    """The box did not join and nothing was changed; the text says why and what to do."""

    default_fault = STATE_NOT_WRITABLE


@dataclass(frozen=True, slots=True)
class Joined:
    """The outcome of a join."""

    agent: str
    config: Path
    config_is_new: bool
    """Whether the configuration was written; if not, there was one already, and it was left alone."""
    proxy: str = ""
    """The proxy that the join went through, without its password; empty for none."""
    clock_fault: str | None = None
    """What is wrong with the box's clock; None when it agrees with the server's."""


async def join(
    server: ServerAddress,
    token: JoinToken,
    folder: Path,
    version: str,
    proxy: str | None = None,
    name: str = "",
    kubernetes_token: str = "",
) -> Joined:
    """Joins the box, and replaces an earlier identity only once the new one is complete.

    Args:
        server: the server to dial, now and from now on.
        token: the token that `cloud-server token create` made.
        folder: the state folder; made when it does not exist.
        version: the version of this software.
        proxy: as `DialOptions.proxy`; the configuration gets the one that is used, since a service has another
            environment than the command.
        name: that the box is to have, with a token for several; "": the token's own.
        kubernetes_token: the token of the pod that this runs in, which says on which node; "": this is no node that
            joins as itself.

    Raises:
        JoinFailed: the box did not join; the text says why.
    """
    seen: list[timedelta] = []
    options = DialOptions(timeout_s=TIMEOUT_S, proxy=proxy, proxy_source="--proxy", on_clock=seen.append)
    try:
        used = options.proxy_to(server.host)
        await asyncio.to_thread(check_writable, folder)  # before the token is used up
    except ProxyUnusable as error:
        raise JoinFailed(error.text, error.fault) from error
    except OSError as error:
        raise JoinFailed(f"{folder} cannot be written: {error.strerror}") from error
    try:
        key_pem = await asyncio.to_thread(new_key)
        csr_der = await asyncio.to_thread(request_for, key_pem)
    except KeysUnavailable as error:
        raise JoinFailed(error.text, error.fault) from error
    tls = ClientTls(certificate=token.certificate_pem, key=token.key_pem, ca=token.ca_pem)
    request = tunnel_pb2.JoinRequest(
        csr_der=csr_der, version=version, agent_name=name, kubernetes_token=kubernetes_token
    )
    try:
        response = await _ask(server, tls, request, options)
        answer = await asyncio.to_thread(check_answer, response, key_pem, token.ca_pem)
    except EnrollmentRefused as refused:
        text = "; ".join(filter(None, [f"{server} refused: {refused}", _clock_fault(seen)]))
        raise JoinFailed(text, refused.fault) from refused
    except CarrierLost as error:
        raise JoinFailed("; ".join(filter(None, [error.text, _maybe_expired(token)])), error.fault) from error
    except KeysUnavailable as error:
        raise JoinFailed(error.text, error.fault) from error
    except ValueError as error:
        raise JoinFailed(f"{server} gave an answer that cannot be used: {error}", NOT_A_LONGLINE_SERVER) from error
    joined = await asyncio.to_thread(_keep, server, folder, key_pem, answer, used)
    return replace(joined, clock_fault=_clock_fault(seen))


async def _ask(
    server: ServerAddress, tls: ClientTls, request: tunnel_pb2.JoinRequest, options: DialOptions
) -> tunnel_pb2.JoinResponse:
    """Returns the server's answer, and asks again while others that join at this moment are too many.

    Raises:
        EnrollmentRefused: the server said no.
        CarrierLost: the server could not be asked.
    """
    clock = asyncio.get_running_loop().time
    until_s = clock() + ASK_FOR_S
    while True:
        try:
            return await call_join(server, tls, request, options)
        except EnrollmentRefused as refused:
            pause_s = max(refused.retry_after_s, LEAST_PAUSE_S) * random.uniform(1.0, 2.0)  # noqa: S311
            if refused.fault is not TOO_MANY_CLIENTS or clock() + pause_s > until_s:
                raise
        await asyncio.sleep(pause_s)


def _clock_fault(seen: list[timedelta]) -> str | None:
    return clock_fault(seen[-1]) if seen else None


def _maybe_expired(token: JoinToken) -> str:
    """Returns a hint that the token has expired by this box's clock; empty if it has not.

    It is for a server that could not be asked: only its clock counts, but a person may know which one is right.
    """
    if datetime.now(UTC) < token.expires:
        return ""
    return f"by this box's clock the join token expired at {date(token.expires)}, too; {clock_says()}"


def _keep(server: ServerAddress, folder: Path, key_pem: bytes, answer: Answer, proxy: HttpProxy | None) -> Joined:
    config = folder / "edge-agent.toml"
    # As JSON, which writes a string as TOML does.
    line = f"proxy = {json.dumps(proxy.url)}\n" if proxy is not None else ""
    mode = SECRET if proxy is not None and proxy.password else PUBLIC
    try:
        make_folder(folder)
        replace_identity(Identity(folder), answer, key_pem)
        config_is_new = not config.exists()
        if config_is_new:
            write_atomic(config, _CONFIG.format(server=server, proxy=line).encode(), mode)
        return Joined(answer.name, config, config_is_new, str(proxy or ""))
    except OSError as error:
        raise JoinFailed(f"{folder} cannot be written: {error.strerror}; the token is used up, make another") from error
