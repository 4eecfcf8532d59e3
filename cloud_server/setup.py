"""What the commands do in the state folder: making it, tokens, kubeconfigs."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cloud_server.config import FleetConfig, ServerConfig, load_server_config, state_of
from cloud_server.trust.agents import AgentStore
from cloud_server.trust.ca import CaMissing, CertificateAuthority
from cloud_server.trust.hosts import HOSTS_FILE, HostsMissing, is_loopback, read_hosts
from cloud_server.trust.kubeconfig import kubeconfig
from cloud_server.trust.renewal import due, renew
from cloud_server.trust.site_kubeconfig import SiteUnusable, Through, check_names, read_site, site_kubeconfig
from cloud_server.trust.site_proxy import site_proxy_certificate
from cloud_server.trust.state_files import CA_FILE, SERVER_FILE, SERVER_KEY_FILE
from cloud_server.trust.tokens import TokenStore
from cloud_server.trust.users import USER_NAME, USER_NAME_RULE, Users
from tunnel.aio.process.config import HostPort
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile, make_folder, write_together
from tunnel.core.wire.faults import (
    AGENT_NAME_INVALID,
    AUTHORITY_IS_YOURS,
    HOST_NAME_INVALID,
    HOSTS_FILE_UNUSABLE,
    NO_FLEET_API,
    NO_KUBECTL_PROXY,
    NO_SUCH_CLUSTER,
    SITE_KUBECONFIG_UNUSABLE,
    STATE_IN_USE,
    STATE_NOT_WRITABLE,
    USER_NAME_INVALID,
    FaultError,
)
from tunnel.core.wire.names import AGENT_NAME_RULE, is_agent_name
from tunnel.core.wire.target_rule import is_dns_name

ADMIN = "admin"
CONNECT_LISTEN = HostPort("127.0.0.1:7444")
FLEET_LISTEN = HostPort("127.0.0.1:7445")
"""Where the first configuration has the CONNECT proxy over TLS, and the fleet API."""

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
    """The command cannot do that; the text says why and what to do."""

    default_fault = STATE_NOT_WRITABLE


@dataclass(frozen=True, slots=True)
class Made:
    """What `init` made."""

    config: Path
    kubeconfig: Path
    server: str
    """`host:port` that boxes dial."""


def init_state(folder: Path, hosts: Sequence[str]) -> Made:
    """Make a state folder; a configuration that is there already stays.

    Args:
        folder: made when it does not exist.
        hosts: names and addresses of this server, at least one.

    Raises:
        ConfigError: the configuration that is there cannot be used.
        SetupFailed: the folder has an authority already, a host is no name, or it cannot be written.
    """
    for host in hosts:
        if not is_dns_name(host) and not _is_address(host):
            raise SetupFailed(f"--host {host!r} is neither a DNS name nor an IP address", HOST_NAME_INVALID)
    path = folder / "cloud-server.toml"
    kept = load_server_config(path) if path.exists() else None
    config = kept or ServerConfig(state=folder, fleet=FleetConfig(listen=FLEET_LISTEN))
    state = state_of(config)
    if config.tunnel.client_ca is not None:
        raise SetupFailed(
            f"{path} takes certificates of your own authority ([tunnel] client_ca): nothing to make", AUTHORITY_IS_YOURS
        )
    if CertificateAuthority.exists(state):
        raise SetupFailed(
            f"{state} has a certificate authority already; take another folder, or use what is there", STATE_IN_USE
        )
    authority = CertificateAuthority.create(config.tunnel.trust_domain)
    made = Made(path, folder / "admin.kubeconfig", f"{_bracketed(hosts[0])}:{config.tunnel.listen[0].port}")
    files = _state_files(state, authority, hosts)
    url = fleet_url(config.fleet.listen or FLEET_LISTEN, hosts[0])
    connect = _dialled(config.connect.listen if kept else CONNECT_LISTEN, hosts[0])
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


def create_join_token(config_path: Path, agent: str, life: timedelta) -> str:
    """A one-time token for a box.

    Raises:
        ConfigError: the configuration cannot be read.
        SetupFailed: the name cannot be used, or the state folder cannot be written.
    """
    if not is_agent_name(agent):
        raise SetupFailed(f"{agent[:80]!r} cannot name an agent: {AGENT_NAME_RULE}", AGENT_NAME_INVALID)
    config = load_server_config(config_path)
    try:
        return TokenStore(state_of(config)).create(_authority(config), agent, life).encode()
    except OSError as error:
        raise SetupFailed(f"{state_of(config)} cannot be written: {error.strerror}") from error


def create_user_token(config_path: Path, user: str) -> str:
    """A bearer token for a user; only its hash is kept.

    Raises:
        ConfigError, SetupFailed: as above.
    """
    _check_user(user)
    config = load_server_config(config_path)
    token = secrets.token_urlsafe(32)
    try:
        Users(state_of(config), config.tunnel.trust_domain).add_token(user, token)
    except OSError as error:
        raise SetupFailed(f"{state_of(config)} cannot be written: {error.strerror}") from error
    return token


def user_kubeconfig(config_path: Path, user: str) -> str:
    """A kubeconfig with a new certificate for a user.

    Raises:
        ConfigError, SetupFailed: as above.
    """
    _check_user(user)
    config = load_server_config(config_path)
    if config.fleet.listen is None:
        raise SetupFailed(
            f"{config_path} has no [fleet] listen: there is no API for a kubeconfig to point at", NO_FLEET_API
        )
    authority = _authority(config)
    first_host = _first_host(state_of(config))
    url, connect = fleet_url(config.fleet.listen, first_host), _dialled(config.connect.listen, first_host)
    return kubeconfig(url, authority.pem, user, authority.issue_user(user), connect)


def cluster_kubeconfig(config_path: Path, user: str, cluster: str) -> str:
    """A kubeconfig for a site's own API server through the CONNECT front end, with a new token for a user.

    Raises:
        ConfigError, SetupFailed: as above.
    """
    _check_user(user)
    config = load_server_config(config_path)
    found = next((one for one in config.cluster if one.name == cluster), None)
    if found is None:
        raise SetupFailed(f"{config_path} has no [[cluster]] of the name {cluster[:80]!r}", NO_SUCH_CLUSTER)
    listen = config.connect.listen_kubectl
    if listen is None:
        raise SetupFailed(
            f"{config_path} has no [connect] listen_kubectl: there is no proxy for a kubeconfig to name",
            NO_KUBECTL_PROXY,
        )
    host = listen.host if is_loopback(listen.host) else _first_host(state_of(config))
    try:
        certificate = site_proxy_certificate(state_of(config))
        through = Through(f"{_bracketed(host)}:{listen.port}", found.agent or found.name, certificate)
        site = read_site(found.kubeconfig)
        check_names(site, certificate)
    except OSError as error:
        raise SetupFailed(f"{error.filename} cannot be read: {error.strerror}", SITE_KUBECONFIG_UNUSABLE) from error
    except (SiteUnusable, HostsMissing) as error:
        raise SetupFailed(error.text, error.fault) from error
    return site_kubeconfig(site, cluster, through, create_user_token(config_path, user))


def renew_certificates(config_path: Path, *, all_of_them: bool) -> list[Path]:
    """Renew the server's certificate and the authority's, each if it is due; returns the files that are new.

    `all_of_them`: also when they are not due.

    Raises:
        ConfigError, SetupFailed: as above.
    """
    config = load_server_config(config_path)
    authority, state = _authority(config), state_of(config)
    files = [CA_FILE, SERVER_FILE] if all_of_them else due(state)
    try:
        renew(state, authority, files)
    except OSError as error:
        raise SetupFailed(f"{error.filename or state} cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise SetupFailed(
            f"{state / HOSTS_FILE} has a name that no certificate can have: {error}", HOSTS_FILE_UNUSABLE
        ) from error
    return [state / file for file in files]


def fleet_url(listen: HostPort, first_host: str) -> str:
    """Where clients find the fleet API: on this machine when it listens on loopback, else by the first --host."""
    return f"https://{_dialled(listen, first_host)}"


def agent_store(config_path: Path) -> AgentStore:
    """The agents of a configuration's state folder, read once.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    config = load_server_config(config_path)
    store = AgentStore(state_of(config), pins_unknown=config.tunnel.client_ca is not None)
    store.reload()
    return store


# Internal


def _state_files(state: Path, authority: CertificateAuthority, hosts: Sequence[str]) -> list[NewFile]:
    """What a server needs to start, the authority last: while that is missing, `init` may be typed again."""
    server = authority.issue_server(hosts)
    return [
        NewFile(state / HOSTS_FILE, "".join(f"{host}\n" for host in hosts).encode(), PUBLIC),
        NewFile(state / SERVER_KEY_FILE, server.key_pem, SECRET),
        NewFile(state / SERVER_FILE, server.certificate_pem, PUBLIC),
        *authority.files(state),
    ]


def _dialled(listen: HostPort | None, first_host: str) -> str:
    """HOST:PORT at which clients find a listener; "" for none."""
    if listen is None:
        return ""
    host = listen.host if is_loopback(listen.host) else first_host
    return f"{_bracketed(host)}:{listen.port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _authority(config: ServerConfig) -> CertificateAuthority:
    if config.tunnel.client_ca is not None:
        raise SetupFailed(
            "certificates come from your own authority ([tunnel] client_ca): make them there", AUTHORITY_IS_YOURS
        )
    try:
        return CertificateAuthority.load(state_of(config), config.tunnel.trust_domain)
    except CaMissing as error:
        raise SetupFailed(error.text, error.fault) from error


def _check_user(user: str) -> None:
    if not USER_NAME.fullmatch(user):
        raise SetupFailed(f"{user[:80]!r} cannot name a user: {USER_NAME_RULE}", USER_NAME_INVALID)


def _first_host(state: Path) -> str:
    try:
        return read_hosts(state)[0]
    except HostsMissing as error:
        raise SetupFailed(error.text, error.fault) from error


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
