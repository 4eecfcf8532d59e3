"""Makes the files of the state folder for the commands, and renews the certificates in it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloud_server.config import FleetConfig, ServerConfig, load_server_config, state_of
from cloud_server.trust.ca import CaMissing, CertificateAuthority
from cloud_server.trust.hosts import HOSTS_FILE, is_loopback
from cloud_server.trust.kubeconfig import kubeconfig
from cloud_server.trust.renewal import due, renew
from cloud_server.trust.state_files import CA_FILE, SERVER_FILE, SERVER_KEY_FILE
from tunnel.aio.process.config import HostPort
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile, make_folder, write_together
from tunnel.core.wire.faults import (
    AUTHORITY_IS_YOURS,
    HOST_NAME_INVALID,
    HOSTS_FILE_UNUSABLE,
    STATE_IN_USE,
    STATE_NOT_WRITABLE,
    FaultError,
)
from tunnel.core.wire.target_rule import is_dns_name

ADMIN = "admin"
CONNECT_LISTEN = HostPort("127.0.0.1:7444")
FLEET_LISTEN = HostPort("127.0.0.1:7445")
"""The addresses of the CONNECT proxy over TLS, and of the fleet API, in the first configuration."""

_CONFIG = f"""\
# What this cloud-server does. Check a change with: cloud-server check --config FILE
# Relative paths are relative to this file. More keys: docs/configuration.md.

[tunnel]                          # where agents dial in
listen = ["0.0.0.0:7443"]

[connect]                         # HTTP CONNECT: kube-apiserver, curl, ssh
unix = "connect.sock"
listen = "{CONNECT_LISTEN}"         # over TLS; client certificate or Proxy-Authorization

[fleet]                           # the Kubernetes API for boxes without Kubernetes
listen = "{FLEET_LISTEN}"

# A local port that leads to one target at one box.
# [[forward]]
# listen = "127.0.0.1:2222"
# agent = "box-7"
# target = "127.0.0.1:22"
"""


class SetupFailed(FaultError):
    """The command cannot be carried out; the text says why and what to do."""

    default_fault = STATE_NOT_WRITABLE


@dataclass(frozen=True, slots=True)
class Made:
    """The files that `init` made, and the address that boxes dial."""

    config: Path
    config_is_new: bool
    """Whether the configuration was made; False when there was one already, which was left alone."""
    kubeconfig: Path
    server: str
    """The address that boxes dial, as `host:port`."""


def init_state(folder: Path, hosts: Sequence[str]) -> Made:
    """Makes a state folder, and a configuration unless there is one already, which stays.

    Args:
        folder: made when it does not exist.
        hosts: names and addresses of this server, at least one.

    Raises:
        ConfigError: the configuration that is there cannot be used.
        SetupFailed: the folder has an authority already, certificates come from the user's own authority, a host is no
            name, or the folder cannot be written.
    """
    for host in hosts:
        if not is_dns_name(host) and not _is_address(host):
            raise SetupFailed(f"--host {host!r} is neither a DNS name nor an IP address", HOST_NAME_INVALID)
    path = folder / "cloud-server.toml"
    kept = load_server_config(path) if path.exists() else None
    config = kept or ServerConfig(state=folder, fleet=FleetConfig(listen=FLEET_LISTEN))
    state = state_of(config)
    if config.tunnel.client_ca is not None:
        text = f"{path} takes certificates of your own authority ([tunnel] client_ca): nothing to make"
        raise SetupFailed(text, AUTHORITY_IS_YOURS)
    if CertificateAuthority.exists(state):
        text = f"{state} has a certificate authority already; take another folder, or use what is there"
        raise SetupFailed(text, STATE_IN_USE)
    authority = CertificateAuthority.create(config.tunnel.trust_domain)
    server = f"{bracketed(hosts[0])}:{config.tunnel.listen[0].port}"
    made = Made(path, kept is None, folder / "admin.kubeconfig", server)
    files = _state_files(state, authority, hosts)
    url = fleet_url(config.fleet.listen or FLEET_LISTEN, hosts[0])
    connect = dialled(config.connect.listen if kept else CONNECT_LISTEN, hosts[0])
    operator = kubeconfig(url, authority.pem, ADMIN, authority.issue_user(ADMIN), connect)
    files.insert(0, NewFile(made.kubeconfig, operator.encode(), SECRET))
    if kept is None:
        files.insert(0, NewFile(path, _CONFIG.encode(), PUBLIC))
    try:
        make_folder(folder)
        make_folder(state)
        write_together(files)
    except OSError as error:
        raise SetupFailed(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    return made


def renew_certificates(config_path: Path, *, all_of_them: bool) -> list[Path]:
    """Renews the server's certificate and the authority's, each if it is due; returns the files that are new.

    With `all_of_them` they are renewed also when they are not due.

    Raises:
        ConfigError: the configuration cannot be read.
        SetupFailed: not all of them could be renewed; the text says why.
    """
    config = load_server_config(config_path)
    authority, state = authority_of(config), state_of(config)
    files = [CA_FILE, SERVER_FILE] if all_of_them else due(state)
    try:
        renew(state, authority, files)
    except OSError as error:
        raise SetupFailed(f"{error.filename or state} cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        text = f"{state / HOSTS_FILE} has a name that no certificate can have: {error}"
        raise SetupFailed(text, HOSTS_FILE_UNUSABLE) from error
    return [state / file for file in files]


def fleet_url(listen: HostPort, first_host: str) -> str:
    """Returns the URL at which clients find the fleet API: on this machine when it listens on loopback, else by the
    first --host.
    """
    return f"https://{dialled(listen, first_host)}"


def dialled(listen: HostPort | None, first_host: str) -> str:
    """Returns the `HOST:PORT` at which clients find a listener; empty when there is none."""
    if listen is None:
        return ""
    host = listen.host if is_loopback(listen.host) else first_host
    return f"{bracketed(host)}:{listen.port}"


def authority_of(config: ServerConfig) -> CertificateAuthority:
    """Returns the authority of a configuration's state folder, with its key.

    Raises:
        SetupFailed: there is none, or it cannot be used.
    """
    if config.tunnel.client_ca is not None:
        text = "certificates come from your own authority ([tunnel] client_ca): make them there"
        raise SetupFailed(text, AUTHORITY_IS_YOURS)
    try:
        return CertificateAuthority.load(state_of(config), config.tunnel.trust_domain)
    except CaMissing as error:
        raise SetupFailed(error.text, error.fault) from error


def bracketed(host: str) -> str:
    """Returns a host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


# Internal


def _state_files(state: Path, authority: CertificateAuthority, hosts: Sequence[str]) -> list[NewFile]:
    """Returns the files that a server needs to start, the authority last: while that is missing, `init` may be typed
    again.
    """
    server = authority.issue_server(hosts)
    return [
        NewFile(state / HOSTS_FILE, "".join(f"{host}\n" for host in hosts).encode(), PUBLIC),
        NewFile(state / SERVER_KEY_FILE, server.key_pem, SECRET),
        NewFile(state / SERVER_FILE, server.certificate_pem, PUBLIC),
        *authority.files(state),
    ]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
