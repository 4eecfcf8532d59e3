"""Joins a box to a cloud server: a key made here, a certificate for it from there, a configuration to start with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from edge_agent.identity import Identity, chain_pem, new_key, request_for
from protos import tunnel_pb2
from tunnel.aio.carrier_errors import CarrierLost, EnrollmentRefused
from tunnel.aio.credentials import ClientTls
from tunnel.aio.enrollment import call_join
from tunnel.aio.files import PUBLIC, SECRET, make_folder, write_atomic
from tunnel.aio.join_token import JoinToken

TIMEOUT_S = 20.0

_CONFIG = """\
# What this box's edge-agent does. Check a change with: edge-agent check --config {path}

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


async def join(server: str, token: JoinToken, folder: Path, version: str) -> Joined:
    """Join, replacing an earlier identity of the box only once the new one is complete.

    Args:
        server: `host:port` to dial now and from now on.
        token: from `cloud-server token create`.
        folder: state folder; made when it does not exist.
        version: of this software.

    Raises:
        JoinFailed: with the reason.
    """
    if datetime.now(UTC) >= token.expires:
        raise JoinFailed(f"the join token expired at {token.expires:%Y-%m-%d %H:%M} UTC; make another")
    key = new_key()
    tls = ClientTls(certificate=token.certificate_pem, key=token.key_pem, ca=token.ca_pem)
    request = tunnel_pb2.JoinRequest(csr_der=request_for(key), version=version)
    try:
        response = await call_join(server, tls, request, TIMEOUT_S)
        chain = chain_pem(list(response.chain_der))
    except EnrollmentRefused as refused:
        raise JoinFailed(f"{server} refused: {refused}") from refused
    except (CarrierLost, ValueError) as error:
        raise JoinFailed(str(error)) from error
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    identity = Identity(folder)
    config = folder / "edge-agent.toml"
    try:
        make_folder(folder)
        write_atomic(identity.key_path, secret, SECRET)
        identity.replace_certificate(chain, response.ca_pem)
        config_is_new = not config.exists()
        if config_is_new:
            write_atomic(config, _CONFIG.format(path=config, server=server).encode(), PUBLIC)
    except OSError as error:
        raise JoinFailed(
            f"{folder} cannot be written ({error.strerror}); the token is used up, make another"
        ) from error
    return Joined(response.agent_name, config, config_is_new)
