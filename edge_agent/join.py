"""Joins a box to a cloud server: a key made here, a certificate for it from there, a configuration to start with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.certificates import Answer, check_answer, new_key, replace, request_for
from edge_agent.identity import Identity
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier_errors import CarrierLost, EnrollmentRefused
from tunnel.aio.carriers.enrollment import call_join
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.process.files import PUBLIC, check_writable, make_folder, write_atomic

TIMEOUT_S = 20.0

_CONFIG = """\
# What this box's edge-agent does. Check a change with: edge-agent check --config FILE

[cloud]
servers = ["{server}"]

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


class JoinFailed(Exception):
    """The box did not join and nothing was changed; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Joined:
    """How a join went."""

    agent: str
    config: Path
    config_is_new: bool
    """False: there was a configuration already, and it was left alone."""


async def join(server: ServerAddress, token: JoinToken, folder: Path, version: str) -> Joined:
    """Join, replacing an earlier identity of the box only once the new one is complete.

    Args:
        server: whom to dial, now and from now on.
        token: from `cloud-server token create`.
        folder: state folder; made when it does not exist.
        version: of this software.

    Raises:
        JoinFailed: with the reason.
    """
    if datetime.now(UTC) >= token.expires:
        raise JoinFailed(f"the join token expired at {token.expires:%Y-%m-%d %H:%M} UTC; make another")
    try:
        await asyncio.to_thread(check_writable, folder)  # before the token is used up
    except OSError as error:
        raise JoinFailed(f"{folder} cannot be written: {error.strerror}") from error
    key = new_key()
    tls = ClientTls(certificate=token.certificate_pem, key=token.key_pem, ca=token.ca_pem)
    request = tunnel_pb2.JoinRequest(csr_der=request_for(key), version=version)
    try:
        response = await call_join(server, tls, request, TIMEOUT_S)
        answer = check_answer(response.chain_der, response.ca_pem, key)
    except EnrollmentRefused as refused:
        raise JoinFailed(f"{server} refused: {refused}") from refused
    except (CarrierLost, ValueError) as error:
        raise JoinFailed(str(error)) from error
    return await asyncio.to_thread(_keep, server, folder, key, answer)


def _keep(server: ServerAddress, folder: Path, key: ec.EllipticCurvePrivateKey, answer: Answer) -> Joined:
    config = folder / "edge-agent.toml"
    try:
        make_folder(folder)
        replace(Identity(folder), answer, key)
        config_is_new = not config.exists()
        if config_is_new:
            write_atomic(config, _CONFIG.format(server=server).encode(), PUBLIC)
        return Joined(answer.name, config, config_is_new)
    except OSError as error:
        raise JoinFailed(f"{folder} cannot be written: {error.strerror}; the token is used up, make another") from error
