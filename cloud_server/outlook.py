"""Finds out what would become of a configuration if the server ran now: for `cloud-server check`, which changes
nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from cloud_server.config import ServerConfig, authority_folder, signer_of, state_of, tls_of
from cloud_server.trust.database import DATABASE_FILE
from cloud_server.trust.oidc.settings import OidcSettings
from cloud_server.trust.renewal import due
from cloud_server.trust.signing_link import SignerFailed
from cloud_server.trust.state import open_state
from cloud_server.trust.state_files import SERVER_FILE
from cloud_server.trust.store import StoreUnavailable
from tunnel.aio.identity.tls_material import CredentialsUnusable
from tunnel.aio.operate.admin import SOCKET_NAME
from tunnel.aio.operate.audit_file import STANDARD_OUTPUT
from tunnel.aio.sockets.binding import address_fault, in_use, path_fault
from tunnel.core.wire.faults import CANNOT_LISTEN, STATE_NOT_WRITABLE, FaultError

ASK_S = 1.0
"""Seconds to wait for a server that runs to be seen; one whose queue is full would have `check` wait for ever."""


def refusals(config: ServerConfig) -> Iterator[FaultError]:
    """Yields each reason for which the server would not start. It asks the machine what a start asks. Blocks."""
    state, tunnel = state_of(config), config.tunnel
    try:
        if tunnel.client_ca is None:
            asyncio.run(_look_at_authority(config))
        if tunnel.client_ca is not None or SERVER_FILE not in due(state, folder=authority_folder(config)):
            tls_of(config).load()  # what is due is made by the start
    except (SignerFailed, CredentialsUnusable) as error:
        yield error
    try:
        _look_at_records(state)
    except StoreUnavailable as error:
        yield error
    # The ports of a server that runs are its own, and so free for the next start.
    own = _runs(state)
    faults = {address: address_fault(address) or _taken(address, own=own) for address in tunnel.listen}
    if all(faults.values()):
        told = "; ".join(f"{address}: {fault}" for address, fault in faults.items())
        yield FaultError(f"tunnel.listen: none of the addresses can be had: {told}", CANNOT_LISTEN)


def outlook(config: ServerConfig) -> Iterator[str]:
    """Yields a line for each part that could not come up, without which the server runs all the same. Blocks."""
    own = _runs(state_of(config))
    for key, address in config.listeners():
        if fault := address_fault(address) or _taken(address, own=own):
            yield f"{key}: {address}: {fault}"
    if config.connect.unix is not None and (fault := path_fault(config.connect.unix)):
        yield f"connect.unix: {config.connect.unix}: {fault}"
    if config.audit.destination != STANDARD_OUTPUT and (fault := path_fault(config.audit.file)):
        yield f"audit.file: {config.audit.file}: {fault}"
    if config.kubernetes.kubeconfig is not None and (fault := _kubeconfig_fault(config.kubernetes.kubeconfig)):
        yield f"kubernetes.kubeconfig: {config.kubernetes.kubeconfig}: {fault}"
    if (settings := config.oidc.settings) is not None and (fault := _issuer_fault(settings)):
        yield f"oidc: {fault}"
    for index, cluster in enumerate(config.cluster):
        try:
            cluster.kubeconfig.open("rb").close()
        except OSError as error:
            yield f"cluster[{index}].kubeconfig: {cluster.kubeconfig}: {str(error.strerror).lower()}"


# Internal


async def _look_at_authority(config: ServerConfig) -> None:
    """Makes sure that whoever signs has an authority, as a start does.

    Raises:
        SignerFailed: they have none, or cannot be asked.
    """
    signer = signer_of(config)
    assert signer is not None
    try:
        await signer.check()
    finally:
        await signer.aclose()


def _look_at_records(state: Path) -> None:
    """Makes sure that a start could use the records.

    Raises:
        StoreUnavailable: a start could not.
    """
    if not os.access(state, os.W_OK | os.X_OK):
        raise StoreUnavailable(f"{state} is no folder that may be written", STATE_NOT_WRITABLE)
    if (state / DATABASE_FILE).exists():
        open_state(state).close()


def _runs(state: Path) -> bool:
    """Returns whether a server with this state folder runs now."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(ASK_S)
        try:
            asking.connect(str(state / SOCKET_NAME))
        except OSError:
            return False
    return True


def _taken(address: str, *, own: bool) -> str:
    return "" if own or not in_use(address) else "somebody else listens there"


def _issuer_fault(settings: OidcSettings) -> str:
    """Returns why the keys of an issuer cannot be fetched from here now; empty when they can."""
    from cloud_server.trust.oidc.fetch import FetchFailed
    from cloud_server.trust.oidc.issuer import issuer_keys  # costs 10 MB

    try:
        asyncio.run(issuer_keys(settings))
    except FetchFailed as error:
        return error.text
    return ""


def _kubeconfig_fault(path: Path) -> str:
    """Returns why a cluster cannot be followed by a kubeconfig; empty when it can, whether or not its API answers."""
    try:
        path.open("rb").close()
    except OSError as error:
        return str(error.strerror).lower()
    from cloud_server.kubernetes.lightkube_access import KubeconfigUnusable, LightkubeAccess  # costs 21 MB

    async def read() -> str:
        try:
            access = LightkubeAccess.from_kubeconfig(path)
        except KubeconfigUnusable as error:
            return error.text
        await access.aclose()
        return ""

    return asyncio.run(read())
